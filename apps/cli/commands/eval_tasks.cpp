// The tasks of `espalier eval` that read --data: options to library calls, scores to a table, JSON
// and lm-eval's files.
#include <chrono>
#include <filesystem>
#include <set>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/eval/choice_task.h"
#include "espalier/eval/task_report.h"
#include "espalier/eval/tasks/task_table.h"
#include "espalier/run/build_info.h"

#include "apps/cli/commands/eval_options.h"

namespace espalier::cli {
namespace {

/// Refuses before the work what cannot be written after it.
void check_writable(const std::string& flag, const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  if (std::filesystem::is_directory(file) ||
      (!folder.empty() && !std::filesystem::is_directory(folder))) {
    throw Error(ErrorKind::kUsage, flag,
                format("{} cannot be a file: {}", file,
                       std::filesystem::is_directory(file) ? "it is a folder"
                                                           : "its folder does not exist"));
  }
}

Json metrics_json(std::span<const MetricValue> metrics, std::int64_t n) {
  Json entry = Json::object();
  for (const MetricValue& value : metrics) {
    const std::string name(metric_name(value.metric));
    entry[name] = value.value;
    entry[name + "_stderr"] = value.error ? Json(*value.error) : Json(nullptr);
  }
  entry["n"] = n;
  return entry;
}

/// Rows of "task  metric  value ± error  n"; a group stands above its members.
class ScoreTable {
 public:
  explicit ScoreTable(const TaskScores& scores) : scores_(scores) {
    for (const GroupResult& group : scores.groups) {
      if (!shown_.contains(group.group->name)) add_group(group, 0);
    }
    for (const TaskResult& task : scores.tasks) {
      if (!shown_.contains(task.task->name)) add_task(task, 0);
    }
  }

  std::string text() const {
    std::size_t width = 4;
    for (const Row& row : rows_) width = std::max(width, row.name.size());
    std::string text = format("{:<{}}  {:<15}  {:>10}  {:>8}  {:>7}\n", "task", width, "metric",
                              "value", "stderr", "n");
    for (const Row& row : rows_) {
      for (std::size_t i = 0; i < row.metrics.size(); ++i) {
        const MetricValue& value = row.metrics[i];
        text += format("{:<{}}  {:<15}  {:>10.4f}  {:>8}", i == 0 ? row.name : "", width,
                       metric_name(value.metric), value.value,
                       value.error ? format("{:.4f}", *value.error) : std::string("-"));
        text += i == 0 ? format("  {:>7}\n", format_count(row.n)) : std::string("\n");
      }
    }
    return text;
  }

 private:
  struct Row {
    std::string name;
    std::span<const MetricValue> metrics;
    std::int64_t n;
  };

  void add_task(const TaskResult& task, std::size_t depth) {
    shown_.insert(task.task->name);
    rows_.push_back({std::string(2 * depth, ' ') + task.task->name, task.metrics,
                     static_cast<std::int64_t>(task.docs.size())});
  }
  void add_group(const GroupResult& group, std::size_t depth) {
    shown_.insert(group.group->name);
    rows_.push_back({std::string(2 * depth, ' ') + group.group->name, group.metrics, group.n});
    for (const std::string& member : group.members) {
      for (const GroupResult& inner : scores_.groups) {
        if (inner.group->name == member) add_group(inner, depth + 1);
      }
      for (const TaskResult& task : scores_.tasks) {
        if (task.task->name == member) add_task(task, depth + 1);
      }
    }
  }

  const TaskScores& scores_;
  std::vector<Row> rows_;
  std::set<std::string> shown_;
};

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct TasksPart::State {
  const EvalSession& session;
  LoadedTasks loaded;
  PairEncoder encoder;
  LikelihoodOptions likelihood;
  double started = now_seconds();
};

TasksPart::TasksPart(const EvalSession& session, const std::vector<std::string>& names) {
  const EvalOptions& o = session.options;
  check_writable("--samples", o.samples);
  check_writable("--lm-eval-json", o.lm_eval_json);
  LoadedTasks loaded =
      load_tasks(names, o.data, {o.limit, o.num_fewshot}, session.context.reporter);
  LikelihoodOptions likelihood;
  const std::int64_t context_length = session.config.context_length;
  likelihood.max_length =
      o.max_length > 0 ? o.max_length : (context_length > 0 ? context_length : 2048);
  likelihood.batch_tokens = session.batch_tokens;
  state_ = std::make_unique<State>(
      State{session, std::move(loaded),
            PairEncoder(session.tokenizer, session.bos, o.special_in_text), likelihood});
}

TasksPart::~TasksPart() = default;

CostEstimate TasksPart::estimate() const {
  const std::int64_t tokens = count_tokens(state_->loaded, state_->encoder);
  std::int64_t docs = 0;
  for (const LoadedTask& task : state_->loaded.tasks)
    docs += static_cast<std::int64_t>(task.docs.size());
  // Rows are short compared with what attention costs; their mean length is near enough.
  const std::int64_t length = std::clamp<std::int64_t>(tokens / std::max<std::int64_t>(1, docs), 1,
                                                       state_->likelihood.max_length);
  CostEstimate cost = forward_cost(state_->session, tokens, length,
                                   std::max(length, state_->likelihood.batch_tokens));
  cost.note = format("{} documents of {} tasks, at most {} tokens", format_count(docs),
                     state_->loaded.tasks.size(), format_count(tokens));
  return cost;
}

EvalPart TasksPart::run(const Decoder& model) const {
  const EvalSession& session = state_->session;
  const EvalOptions& o = session.options;
  const LoadedTasks& loaded = state_->loaded;
  const TaskScores scores = score_tasks(model, loaded, state_->encoder, state_->likelihood,
                                        session.context.reporter, session.context.stop);
  if (scores.stats.truncated > 0) {
    session.context.reporter.warn(
        format("{} prompts are longer than {} tokens and lost their beginning",
               scores.stats.truncated, state_->likelihood.max_length));
  }
  EvalPart part;
  for (const GroupResult& group : scores.groups)
    part.results[group.group->name] = metrics_json(group.metrics, group.n);
  for (const TaskResult& task : scores.tasks)
    part.results[task.task->name] =
        metrics_json(task.metrics, static_cast<std::int64_t>(task.docs.size()));
  part.seconds = scores.stats.seconds;
  part.tokens = scores.stats.forward_tokens;
  part.config = {{"seq_len", state_->likelihood.max_length},
                 {"max_length", state_->likelihood.max_length},
                 {"batch_size",
                  std::max<std::int64_t>(1, session.batch_tokens / state_->likelihood.max_length)},
                 {"batch_tokens", session.batch_tokens},
                 {"data", o.data},
                 {"limit", o.limit},
                 {"num_fewshot", o.num_fewshot},
                 {"missing", loaded.missing}};
  part.text = ScoreTable(scores).text() +
              format(
                  "{}-shot, {}, {}, prompts up to {} tokens\n{} tokens in prompts, {:.0f} "
                  "tokens/s in {}\n",
                  o.num_fewshot, session.bos ? "BOS in front" : "no BOS", o.model.dtype,
                  state_->likelihood.max_length, format_count(scores.stats.request_tokens),
                  static_cast<double>(scores.stats.forward_tokens) / scores.stats.seconds,
                  format_seconds(scores.stats.seconds));
  if (!o.samples.empty()) {
    std::string lines;
    for (std::size_t i = 0; i < scores.tasks.size(); ++i)
      lines += samples_jsonl(loaded.tasks[i], scores.tasks[i]);
    write_file_atomically(o.samples, lines);
  }
  if (!o.lm_eval_json.empty()) {
    LmEvalRun run{.model = o.model.model,
                  .dtype = o.model.dtype,
                  .device = session.device.str(),
                  .version = build_info().version,
                  .date = state_->started,
                  .limit = o.limit,
                  .max_length = state_->likelihood.max_length,
                  .batch_tokens = session.batch_tokens,
                  .add_bos = session.bos.has_value(),
                  .seconds = now_seconds() - state_->started};
    write_file_atomically(o.lm_eval_json, lm_eval_json(loaded, scores, run));
  }
  return part;
}

}  // namespace espalier::cli
