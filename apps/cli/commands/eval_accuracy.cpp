// `espalier eval CNN --task accuracy`.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/eval/accuracy.h"
#include "espalier/run/build_info.h"
#include "espalier/tensor/tensor_view.h"

#include "apps/cli/commands/eval_options.h"

namespace espalier::cli {
namespace {

std::string result_json(const EvalOptions& o, const Cnn& net, const ImageSet& images,
                        const Accuracy& found, double seconds) {
  Json json;
  json["schema"] = "espalier.eval/1";
  json["model"] = o.model.model;
  json["results"]["accuracy"] = {
      {"accuracy", found.accuracy}, {"accuracy_stderr", found.accuracy_stderr()},
      {"top5", found.top5},         {"top5_stderr", found.top5_stderr()},
      {"loss", found.loss},         {"n", found.n}};
  json["config"] = {{"dtype", o.model.dtype},
                    {"device", net.device().str()},
                    {"batch_size", o.batch_size},
                    {"arch", net.config().arch},
                    {"data", o.data},
                    {"split", images.split},
                    {"limit", o.limit},
                    {"mean", net.config().mean},
                    {"std", net.config().std},
                    {"broken", images.broken.size()},
                    {"version", build_info().version}};
  json["seconds"] = seconds;
  json["images_per_second"] = static_cast<double>(found.n) / seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(net.device());
  return dump_json(json);
}

}  // namespace

int run_accuracy(const EvalOptions& o, Context& context) {
  if (o.data.empty()) {
    throw Error(ErrorKind::kUsage, "--data", "is needed by task accuracy")
        .hint("--data DIR, a folder of class folders");
  }
  const at::Device device = ModelOptions::device(context);
  const Cnn net = load_cnn(o.model.model, o.arch, o.images)
                      .to(device, at::kFloat, at::MemoryFormat::ChannelsLast);
  const ImageSet images =
      load_images(o.data, o.images, net.config().in_channels, o.limit, "test", context.reporter);
  if (o.cost.dry_run) {
    CostEstimate cost;
    cost.peak_memory = {peak_rss().count};
    cost.note = format("{} images, {} parameters", format_count(images.size()),
                       format_count(net.parameter_count()));
    print_cost(context, "eval", cost, "");
    return 0;
  }
  const Stopwatch watch;
  const Accuracy found = measure_accuracy(net, images, o.batch_size, o.model.scalar_type(),
                                          context.reporter, context.stop);
  const double seconds = watch.seconds();
  context.print_result(
      format("accuracy {:.4f} ± {:.4f}, top-5 {:.4f}, loss {:.4f}: {} images{}, {:.0f} images/s\n",
             found.accuracy, found.accuracy_stderr(), found.top5, found.loss, format_count(found.n),
             images.split.empty() ? "" : " of " + images.split,
             static_cast<double>(found.n) / seconds),
      result_json(o, net, images, found, seconds));
  return 0;
}

}  // namespace espalier::cli
