// `espalier verify`: is a model whole, and who can load it.
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"

#include "apps/cli/commands.h"
#include "apps/cli/model_options.h"
#include "apps/cli/verify_model.h"

namespace espalier::cli {
namespace {

constexpr std::size_t kShownDetails = 20;

struct VerifyOptions {
  ModelArgument model;
  bool deep = false;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("What to check");
    option("deep", deep, "also read every weight for NaN and Inf");
  }
};

const char* status_name(VerifyCheck::Status status) {
  switch (status) {
    case VerifyCheck::Status::kOk:
      return "ok";
    case VerifyCheck::Status::kWarning:
      return "warning";
    case VerifyCheck::Status::kProblem:
      return "problem";
    case VerifyCheck::Status::kSkipped:
      return "skipped";
  }
  return "";
}

std::string as_text(const Verification& result) {
  std::string text = format("{}\n", result.path);
  for (const VerifyCheck& check : result.checks) {
    for (std::size_t i = 0; i < std::min(check.details.size(), kShownDetails); ++i) {
      text += format("  {:<8} {:<14} {}\n", i == 0 ? status_name(check.status) : "",
                     i == 0 ? check.name : "", check.details[i]);
    }
    if (check.details.size() > kShownDetails) {
      text += format("  {:<8} {:<14} and {} more (--json lists them all)\n", "", "",
                     check.details.size() - kShownDetails);
    }
  }
  if (!result.consumers.empty()) text += "\nWho can load it:\n";
  for (const Consumer& consumer : result.consumers) {
    text += format("  {:<4} {:<13} {}\n", consumer.loads ? "yes" : "no", consumer.name,
                   consumer.reason);
  }
  const std::size_t problems = result.all(VerifyCheck::Status::kProblem).size();
  if (problems == 0) return text + "\nThe model is whole.\n";
  return text +
         format("\nThe model is broken: {} problem{}.\n", problems, problems == 1 ? "" : "s");
}

std::string as_json(const Verification& result, double seconds) {
  Json checks = Json::array(), consumers = Json::object();
  for (const VerifyCheck& check : result.checks) {
    checks.push_back(
        {{"name", check.name}, {"status", status_name(check.status)}, {"details", check.details}});
  }
  for (const Consumer& consumer : result.consumers) {
    consumers[consumer.name] = {{"loads", consumer.loads}, {"reason", consumer.reason}};
  }
  return dump_json({{"schema", "espalier.verify/1"},
                    {"model", result.path},
                    {"format", result.format},
                    {"architecture", result.architecture},
                    {"ok", result.whole()},
                    {"problems", result.all(VerifyCheck::Status::kProblem)},
                    {"warnings", result.all(VerifyCheck::Status::kWarning)},
                    {"checks", checks},
                    {"consumers", consumers},
                    {"deep", result.deep},
                    {"tensors", result.tensors},
                    {"scanned_elements", result.scanned_elements},
                    {"seconds", seconds}});
}

int run_verify(const VerifyOptions& options, Context& context) {
  const Stopwatch watch;
  const Verification result =
      verify_model(options.model.locate(), options.deep, context.reporter, context.stop);
  context.print_result(as_text(result), as_json(result, watch.seconds()));
  return result.whole() ? 0 : static_cast<int>(ErrorKind::kInput);
}

}  // namespace

Command verify_command() {
  return make_command<VerifyOptions>(
      "verify", "Check", "prove that a model is whole and say who can load it", run_verify,
      {"espalier verify models/pruned", "espalier verify model.gguf --deep --json"});
}

}  // namespace espalier::cli
