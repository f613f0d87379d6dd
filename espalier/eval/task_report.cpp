#include "espalier/eval/task_report.h"

#include <algorithm>

#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_table.h"

namespace espalier {
namespace {

Json to_json(const TableValue& value) {
  if (const auto* flag = std::get_if<bool>(&value.data)) return *flag;
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) return *number;
  if (const auto* real = std::get_if<double>(&value.data)) return *real;
  if (const std::string* text = value.text()) return *text;
  if (value.list() != nullptr) {
    Json list = Json::array();
    for (const TableValue& item : *value.list()) list.push_back(to_json(item));
    return list;
  }
  if (value.fields() != nullptr) {
    Json object = Json::object();
    for (const TableField& field : *value.fields()) object[field.name] = to_json(field.value);
    return object;
  }
  return nullptr;
}

std::string dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

/// lm-eval writes numbers of responses as Python's str() does.
Json response(const TaskKind kind, const Likelihood& one) {
  const std::string value = python_float(one.log_likelihood);
  if (kind == TaskKind::kPage) return value;
  return Json::array({value, one.greedy ? "True" : "False"});
}

std::string target_text(const EvalTask& task, const EvalDoc& doc) {
  return task.kind == TaskKind::kChoices ? format("{}", doc.gold) : doc.target;
}

Json doc_metric(MetricKind metric, const EvalDoc& doc, const DocAnswer& answer) {
  const double value = answer.answers.front().log_likelihood;
  switch (metric) {
    case MetricKind::kAcc:
      return answer.acc;
    case MetricKind::kAccNorm:
      return answer.acc_norm;
    case MetricKind::kPerplexity:
      return value;
    case MetricKind::kWordPerplexity:
      return Json::array({value, doc.words});
    default:
      return Json::array({value, doc.bytes});
  }
}

Json sample(const LoadedTask& loaded, std::size_t index, const DocAnswer& answer) {
  const EvalTask& task = *loaded.task;
  const EvalDoc& doc = loaded.docs[index];
  const std::vector<TextPair> pairs = text_pairs(loaded, doc);
  const std::string target = target_text(task, doc);
  Json line;
  line["task"] = task.name;
  line["doc_id"] = index;
  line["doc"] = to_json(doc.doc);
  line["target"] = target;
  line["arguments"] = Json::object();
  line["resps"] = Json::array();
  line["filtered_resps"] = Json::array();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Json& arguments = line["arguments"][format("gen_args_{}", i)];
    if (task.kind == TaskKind::kPage) {
      arguments["arg_0"] = pairs[i].continuation;
    } else {
      arguments["arg_0"] = pairs[i].context;
      arguments["arg_1"] = pairs[i].continuation;
    }
    line["resps"].push_back(Json::array({response(task.kind, answer.answers[i])}));
    line["filtered_resps"].push_back(response(task.kind, answer.answers[i]));
  }
  line["filter"] = "none";
  line["metrics"] = Json::array();
  for (const MetricKind metric : task.metrics) line["metrics"].push_back(metric_name(metric));
  line["doc_hash"] = sha256_hex(dump(line["doc"], 2));
  line["prompt_hash"] =
      sha256_hex(task.kind == TaskKind::kPage ? pairs[0].continuation : pairs[0].context);
  line["target_hash"] = sha256_hex(target);
  for (const MetricKind metric : task.metrics)
    line[std::string(metric_name(metric))] = doc_metric(metric, doc, answer);
  return line;
}

void put_metrics(Json& entry, std::span<const MetricValue> metrics, bool page) {
  for (const MetricValue& value : metrics) {
    const std::string name(metric_name(value.metric));
    entry[name + ",none"] = value.value;
    entry[name + "_stderr,none"] = value.error && !page ? Json(*value.error) : Json("N/A");
  }
}

std::string_view output_type(TaskKind kind) {
  if (kind == TaskKind::kPage) return "loglikelihood_rolling";
  return kind == TaskKind::kTarget ? "loglikelihood" : "multiple_choice";
}

Json config_of(const LoadedTask& loaded) {
  Json files = Json::array();
  for (const std::filesystem::path& file : loaded.files) files.push_back(file.string());
  return {{"task", loaded.task->name},
          {"task_alias", loaded.task->alias},
          {"dataset_kwargs", {{"data_files", files}}},
          {"description", loaded.task->description},
          {"target_delimiter", " "},
          {"fewshot_delimiter", "\n\n"},
          {"fewshot_config", {{"sampler", "first_n"}}},
          {"num_fewshot", loaded.num_fewshot},
          {"output_type", output_type(loaded.task->kind)},
          {"metadata", {{"version", loaded.task->version}}}};
}

void put_task(Json& all, const LoadedTask& loaded, const TaskResult& result) {
  const EvalTask& task = *loaded.task;
  Json& entry = all["results"][task.name];
  entry = {{"name", task.name}, {"alias", task.alias}, {"sample_len", result.docs.size()}};
  put_metrics(entry, result.metrics, task.kind == TaskKind::kPage);
  all["configs"][task.name] = config_of(loaded);
  all["versions"][task.name] = task.version;
  all["n-shot"][task.name] = loaded.num_fewshot;
  for (const MetricKind metric : task.metrics)
    all["higher_is_better"][task.name][std::string(metric_name(metric))] = higher_is_better(metric);
  all["n-samples"][task.name] = {{"original", loaded.available}, {"effective", loaded.docs.size()}};
}

void put_group(Json& all, const GroupResult& result) {
  const EvalGroup& group = *result.group;
  Json entry = {{"name", group.name}, {"alias", group.alias}, {"sample_len", result.n}};
  put_metrics(entry, result.metrics, false);
  for (const MetricValue& value : result.metrics)
    entry["sample_count"][std::string(metric_name(value.metric)) + ",none"] = result.n;
  all["results"][group.name] = entry;
  all["groups"][group.name] = entry;
  all["group_subtasks"][group.name] = result.members;
  all["versions"][group.name] = group.version;
  for (const MetricValue& value : result.metrics)
    all["higher_is_better"][group.name][std::string(metric_name(value.metric))] = true;
}

}  // namespace

std::string samples_jsonl(const LoadedTask& loaded, const TaskResult& result) {
  std::string lines;
  for (std::size_t i = 0; i < result.docs.size(); ++i)
    lines += dump(sample(loaded, i, result.docs[i]), -1) + "\n";
  return lines;
}

std::string lm_eval_json(const LoadedTasks& loaded, const TaskScores& scores,
                         const LmEvalRun& run) {
  Json all;
  for (const char* part : {"results", "group_subtasks", "configs", "versions", "n-shot",
                           "higher_is_better", "n-samples"})
    all[part] = Json::object();
  for (const GroupResult& group : scores.groups) put_group(all, group);
  for (std::size_t i = 0; i < scores.tasks.size(); ++i)
    put_task(all, loaded.tasks[i], scores.tasks[i]);
  all["config"] = {
      {"model", "espalier"},
      {"model_args", format("pretrained={},dtype={},add_bos_token={},max_length={}", run.model,
                            run.dtype, run.add_bos ? "True" : "False", run.max_length)},
      {"model_dtype", run.dtype},
      {"batch_size", format("{} tokens", run.batch_tokens)},
      {"device", run.device},
      {"limit", run.limit > 0 ? Json(run.limit) : Json(nullptr)},
      {"bootstrap_iters", 0}};
  all["date"] = run.date;
  all["espalier_version"] = run.version;
  all["max_length"] = run.max_length;
  all["model_source"] = "espalier";
  all["model_name"] = run.model;
  all["total_evaluation_time_seconds"] = format("{}", run.seconds);
  return dump_json(all);
}

}  // namespace espalier
