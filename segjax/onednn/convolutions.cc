// Convolutions of float32 images by oneDNN, as functions that XLA calls.
//
// Images are [B, H, W, C] and kernels [K, L, I, O], as in JAX. A kernel with I = 1 on an
// image of C > 1 channels is depthwise, with O = C. `window` is (stride, dilation, zeros
// above, left, below, right). A bias is [O]. A packed kernel is in oneDNN's layout for
// images of one size, or is not used, where that takes more than its space.

#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

extern "C" int omp_get_max_threads();
extern "C" void omp_set_num_threads(int);

// Up to this many cores, XLA's threads call oneDNN themselves; see Caller.
#ifndef SEGJAX_DIRECT_CORES
#define SEGJAX_DIRECT_CORES 8
#endif

namespace {

using dnnl::memory;
using xla::ffi::Error;
using Array = xla::ffi::Buffer<xla::ffi::F32>;
using Result = xla::ffi::ResultBuffer<xla::ffi::F32>;
using Ints = xla::ffi::Span<const int64_t>;

constexpr auto kFloat = memory::data_type::f32;
constexpr auto kDirect = dnnl::algorithm::convolution_direct;

// Kernels of more entries are copied by all threads. Waking them takes 0.1 ms.
constexpr size_t kLarge = 1 << 16;
// Those of more are copied without asking whether that is needed: asking takes memory.
constexpr size_t kHuge = 1 << 20;

// Of oneDNN's ReLU below 0. With a slope of 0 it makes NaN 0, and hides that a network
// has diverged; this one is less than any rounding.
constexpr float kSlope = 1e-30f;

// kRectified is forward, adds a number to each channel, and computes ReLU.
enum Kind { kForward, kRectified, kInputGradient, kKernelGradient };

bool IsForward(Kind kind) { return kind <= kRectified; }

const dnnl::engine& Cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// What oneDNN calls source, weights and destination, in JAX's layouts.
struct Shapes {
  memory::desc source, weights, bias, destination;
  memory::dims strides, dilation, before, after;
  std::vector<int64_t> key;

  Shapes(Ints x, Ints kernel, Ints y, Ints window)
      : source(Image(x)),
        weights(Kernel(kernel, x[3])),
        bias({y[3]}, kFloat, memory::format_tag::x),
        destination(Image(y)),
        strides{window[0], window[0]},
        dilation{window[1] - 1, window[1] - 1},
        before{window[2], window[3]},
        after{window[4], window[5]} {
    for (Ints part : {x, kernel, window}) key.insert(key.end(), part.begin(), part.end());
  }

  static memory::desc Image(Ints d) {
    return {{d[0], d[3], d[1], d[2]}, kFloat, memory::format_tag::nhwc};
  }

  static memory::desc Kernel(Ints d, int64_t channels) {
    const int64_t k = d[0], l = d[1], i = d[2], o = d[3];
    if (i == channels)
      return {{o, i, k, l}, kFloat, memory::dims{1, o, l * i * o, i * o}};
    return {{o, 1, 1, k, l}, kFloat, memory::dims{1, 1, 1, l * o, o}};
  }
};

// Makes what this thread begins run in it alone.
class OneThread {
 public:
  explicit OneThread(bool wanted) : before_(omp_get_max_threads()) {
    if (wanted) omp_set_num_threads(1);
  }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// A primitive, and the copy between JAX's layout of the kernel and the one it uses,
// unless the two are the same, as with 16 outputs. oneDNN's own scratch memory belongs
// to the thread that made a primitive, and XLA calls from any, so each call brings its
// own.
struct Plan {
  dnnl::primitive primitive;
  memory::desc weights, scratch, copy_scratch;
  dnnl::reorder copy;
  bool small, copies;

  Plan(Kind kind, const Shapes& s) {
    // oneDNN chooses the layout of the kernel, which is small.
    const memory::desc any(s.weights.get_dims(), kFloat, memory::format_tag::any);
    dnnl::primitive_attr attributes, with_relu;
    for (dnnl::primitive_attr* each : {&attributes, &with_relu})
      each->set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops relu;
    relu.append_eltwise(dnnl::algorithm::eltwise_relu, kSlope, 0);
    with_relu.set_post_ops(relu);
    const bool rectified = kind == kRectified;
    const dnnl::convolution_forward::primitive_desc forward(
        Cpu(), dnnl::prop_kind::forward_training, kDirect, s.source, any,
        rectified ? s.bias : memory::desc(), s.destination, s.strides, s.dilation,
        s.before, s.after, rectified ? with_relu : attributes);
    if (IsForward(kind)) {
      Take<dnnl::convolution_forward>(forward, forward.weights_desc());
    } else if (kind == kInputGradient) {
      using Gradient = dnnl::convolution_backward_data;
      const Gradient::primitive_desc gradient(Cpu(), kDirect, s.source, any,
                                              s.destination, s.strides, s.dilation,
                                              s.before, s.after, forward, attributes);
      Take<Gradient>(gradient, gradient.weights_desc());
    } else {
      using Gradient = dnnl::convolution_backward_weights;
      const Gradient::primitive_desc gradient(Cpu(), kDirect, s.source, any,
                                              s.destination, s.strides, s.dilation,
                                              s.before, s.after, forward, attributes);
      Take<Gradient>(gradient, gradient.diff_weights_desc());
    }
    const bool out = kind == kKernelGradient;
    const size_t entries = s.weights.get_size() / sizeof(float);
    small = entries <= kLarge;
    const OneThread one(small);
    const dnnl::reorder::primitive_desc reorder(Cpu(), out ? weights : s.weights, Cpu(),
                                                out ? s.weights : weights, attributes);
    copy = dnnl::reorder(reorder);
    copy_scratch = reorder.scratchpad_desc();
    copies = entries > kHuge || weights.get_size() != s.weights.get_size() ||
             Moves(s.weights, out);
  }

  template <class Primitive>
  void Take(const typename Primitive::primitive_desc& made, memory::desc kernel) {
    primitive = Primitive(made);
    weights = kernel;
    scratch = made.scratchpad_desc();
  }

  // Whether a packed kernel has the primitive's layout.
  bool Fits(const Array& packed) const {
    return weights.get_size() <= packed.size_bytes();
  }

  // Whether the copy changes the order of the entries.
  bool Moves(const memory::desc& plain, bool out) const {
    const size_t size = plain.get_size();
    std::vector<float> before(size / sizeof(float)), after(before.size());
    for (size_t i = 0; i < before.size(); ++i) before[i] = i;
    dnnl::stream stream(Cpu());
    Copy(stream, memory(out ? weights : plain, Cpu(), before.data()),
         memory(out ? plain : weights, Cpu(), after.data()));
    stream.wait();
    return std::memcmp(before.data(), after.data(), size) != 0;
  }

  void Copy(dnnl::stream& stream, const memory& from, const memory& to) const {
    const OneThread one(small);
    copy.execute(stream, {{DNNL_ARG_FROM, from},
                          {DNNL_ARG_TO, to},
                          {DNNL_ARG_SCRATCHPAD, memory(copy_scratch, Cpu())}});
  }
};

// Making a plan takes longer than a small convolution, so plans are kept.
const Plan& FindPlan(Kind kind, const Shapes& shapes) {
  using Key = std::pair<Kind, std::vector<int64_t>>;
  static auto& plans = *new std::map<Key, std::unique_ptr<Plan>>;
  std::unique_ptr<Plan>& plan = plans[{kind, shapes.key}];
  if (!plan) plan = std::make_unique<Plan>(kind, shapes);
  return *plan;
}

// Called by one thread at a time. Without a bias or a packed kernel, those are null.
void Compute(Kind kind, const Array& x, const Array& kernel, const Array* packed,
             const Array* bias, const Array& y, Ints window) {
  const Shapes shapes(x.dimensions(), kernel.dimensions(), y.dimensions(), window);
  const Plan& plan = FindPlan(kind, shapes);
  if (packed && !plan.Fits(*packed)) packed = nullptr;
  const bool copies = plan.copies && !packed;
  memory source(shapes.source, Cpu(), x.typed_data());
  memory plain(shapes.weights, Cpu(), kernel.typed_data());
  memory destination(shapes.destination, Cpu(), y.typed_data());
  float* used = (packed ? *packed : kernel).typed_data();
  memory weights = copies ? memory(plan.weights, Cpu()) : memory(plan.weights, Cpu(), used);
  dnnl::stream stream(Cpu());
  if (copies && kind != kKernelGradient) plan.Copy(stream, plain, weights);
  std::unordered_map<int, memory> arguments{
      {kind == kInputGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, source},
      {kind == kKernelGradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, weights},
      {IsForward(kind) ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, destination},
      {DNNL_ARG_SCRATCHPAD, memory(plan.scratch, Cpu())}};
  if (bias) arguments[DNNL_ARG_BIAS] = memory(shapes.bias, Cpu(), bias->typed_data());
  plan.primitive.execute(stream, arguments);
  if (copies && kind == kKernelGradient) plan.Copy(stream, weights, plain);
  stream.wait();
}

// One thread that calls oneDNN. OpenMP keeps a team of as many threads as there are
// cores for each thread that calls it, and XLA has a thread for each core: on 64 cores
// 4,096 threads. Passing calls on takes 4 % of a small U-Net's step on two cores.
class Caller {
 public:
  static Caller& Get() {
    static Caller& caller = *new Caller;  // Never destroyed: its thread never ends.
    return caller;
  }

  Error Run(std::packaged_task<Error()> task) {
    std::future<Error> result = task.get_future();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    waiting_.notify_one();
    return result.get();
  }

 private:
  Caller() { std::thread([this] { Work(); }).detach(); }

  void Work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      waiting_.wait(lock, [this] { return !tasks_.empty(); });
      std::packaged_task<Error()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable waiting_;
  std::deque<std::packaged_task<Error()>> tasks_;
};

template <class Work>
Error Run(const Work& work) {
  const auto guarded = [&] {
    try {
      work();
      return Error::Success();
    } catch (const dnnl::error& error) {
      return Error::Internal(std::string("oneDNN: ") + error.what());
    }
  };
  static const bool direct = std::thread::hardware_concurrency() <= SEGJAX_DIRECT_CORES;
  if (!direct) return Caller::Get().Run(std::packaged_task<Error()>(guarded));
  // Two at once would have twice as many threads as there are cores.
  static std::mutex& mutex = *new std::mutex;
  std::lock_guard<std::mutex> lock(mutex);
  return guarded();
}

Error Forward(Array x, Array kernel, Result y, Ints window) {
  return Run([&] { Compute(kForward, x, kernel, nullptr, nullptr, *y, window); });
}

Error Rectified(Array x, Array kernel, Array packed, Array bias, Result y, Ints window) {
  return Run([&] { Compute(kRectified, x, kernel, &packed, &bias, *y, window); });
}

Error InputGradient(Array y, Array kernel, Result x, Ints window) {
  return Run([&] { Compute(kInputGradient, *x, kernel, nullptr, nullptr, y, window); });
}

Error KernelGradient(Array x, Array y, Result kernel, Ints window) {
  return Run([&] { Compute(kKernelGradient, x, *kernel, nullptr, nullptr, y, window); });
}

// Packs a kernel for Rectified, for images of the shape `image`.
Error Pack(Array kernel, Result packed, Ints window, Ints image) {
  return Run([&] {
    const Ints k = kernel.dimensions();
    int64_t map[] = {image[0], 0, 0, k[3]};
    for (int i : {0, 1}) {
      const int64_t padded = image[1 + i] + window[2 + i] + window[4 + i];
      map[1 + i] = (padded - window[1] * (k[i] - 1) - 1) / window[0] + 1;
    }
    const Shapes shapes(image, k, Ints(map, 4), window);
    const Plan& plan = FindPlan(kRectified, shapes);
    if (!plan.Fits(*packed)) return;
    if (!plan.copies) {
      std::memcpy(packed->typed_data(), kernel.typed_data(), kernel.size_bytes());
      return;
    }
    dnnl::stream stream(Cpu());
    plan.Copy(stream, memory(shapes.weights, Cpu(), kernel.typed_data()),
              memory(plan.weights, Cpu(), packed->typed_data()));
    stream.wait();
  });
}

auto Signature() {
  return xla::ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Attr<Ints>(
      "window");
}

auto RectifiedSignature() {
  return xla::ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<Ints>("window");
}

auto PackSignature() {
  return xla::ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Attr<Ints>("window").Attr<Ints>(
      "shape");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(segjax_onednn_forward, Forward, Signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(segjax_onednn_pack, Pack, PackSignature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(segjax_onednn_rectified, Rectified, RectifiedSignature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(segjax_onednn_input_gradient, InputGradient, Signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(segjax_onednn_kernel_gradient, KernelGradient, Signature());
