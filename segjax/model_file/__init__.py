"""A trained model as data: its parts by name in `model.json`, its variables beside it.

Reading one executes nothing but segjax's own code: names are looked up in a closed
list, and variables are plain arrays.
"""

from segjax.model_file.encoding import NotSerializableError as NotSerializableError
from segjax.model_file.encoding import decode as decode
from segjax.model_file.encoding import encode as encode
from segjax.model_file.files import MODEL_JSON as MODEL_JSON
from segjax.model_file.files import build_forward as build_forward
from segjax.model_file.files import read as read
from segjax.model_file.files import write as write
