// From names and a folder to scores. Loading, prompts and scoring are three passes, so that input
// is judged before time is spent.
#include "espalier/eval/choice_task.h"

#include <algorithm>
#include <limits>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/tasks/task_table.h"

namespace espalier {
namespace {

/// "question answer\n\n": one few-shot example.
std::string example_text(const EvalTask& task, const EvalDoc& doc) {
  const auto gold = static_cast<std::size_t>(doc.gold);
  switch (task.kind) {
    case TaskKind::kChoices:
      return doc.context + " " + doc.choices[gold] + "\n\n";
    case TaskKind::kContexts:
      return doc.choices[gold] + " " + doc.target + "\n\n";
    default:
      return doc.context + " " + doc.target + "\n\n";
  }
}

std::string example_prefix(const EvalTask& task, const std::filesystem::path& folder,
                           std::int64_t count) {
  if (count == 0) return {};
  if (task.examples.names.empty()) {
    throw Error(ErrorKind::kUsage, "--num-fewshot",
                format("is {}, but {} is published without a split to take examples from", count,
                       task.name))
        .hint("--num-fewshot 0");
  }
  const std::vector<std::filesystem::path> files = find_task_files(folder, task.examples);
  if (files.empty()) {
    throw Error(ErrorKind::kInput, folder.string(),
                format("holds no few-shot examples for {}; looked for {}", task.name,
                       to_string(task.examples)))
        .hint("--num-fewshot 0");
  }
  const std::vector<EvalDoc> examples = task.read(task, files, count);
  if (static_cast<std::int64_t>(examples.size()) < count) {
    throw Error(
        ErrorKind::kUsage, "--num-fewshot",
        format("is {}, but {} holds {} examples", count, files.front().string(), examples.size()));
  }
  std::string prefix;
  for (const EvalDoc& example : examples) prefix += example_text(task, example);
  return prefix;
}

std::optional<LoadedTask> load_task(const EvalTask& task, const std::filesystem::path& folder,
                                    const TaskOptions& options, Reporter& reporter) {
  LoadedTask loaded;
  loaded.task = &task;
  loaded.files = find_task_files(folder, task.files);
  if (loaded.files.empty()) return std::nullopt;
  loaded.docs = task.read(task, loaded.files, 0);
  if (loaded.docs.empty()) return std::nullopt;  // a table of languages without this one
  loaded.available = static_cast<std::int64_t>(loaded.docs.size());
  if (options.limit > 0 && options.limit < loaded.available)
    loaded.docs.resize(static_cast<std::size_t>(options.limit));
  loaded.num_fewshot = std::max<std::int64_t>(0, options.num_fewshot);
  if (task.zero_shot_only && loaded.num_fewshot > 0) {
    reporter.warn_once("zero shot", format("{} and its like are scored without examples, as in "
                                           "lm-eval; --num-fewshot does not apply to them",
                                           task.name));
    loaded.num_fewshot = 0;
  }
  loaded.prefix = task.description + example_prefix(task, folder, loaded.num_fewshot);
  return loaded;
}

[[noreturn]] void throw_missing(const std::string& name, const std::filesystem::path& folder,
                                const FileSearch& search) {
  throw Error(ErrorKind::kInput, folder.string(),
              format("holds no data of task {}; looked for {}", name, to_string(search)))
      .hint("docs/formats/eval_tasks.md says where each task's files come from");
}

void warn_missing(const EvalGroup& group, std::span<const std::string> missing, std::size_t all,
                  Reporter& reporter) {
  if (missing.empty()) return;
  std::string names;
  for (std::size_t i = 0; i < std::min<std::size_t>(missing.size(), 3); ++i)
    names += (i > 0 ? ", " : "") + missing[i];
  if (missing.size() > 3) names += format(" and {} more", missing.size() - 3);
  reporter.warn(format("{} is scored on {} of its {} parts: no files for {}", group.name,
                       all - missing.size(), all, names));
}

}  // namespace

LoadedTasks load_tasks(std::span<const std::string> names, const std::filesystem::path& folder,
                       const TaskOptions& options, Reporter& reporter) {
  if (!std::filesystem::is_directory(folder)) {
    throw Error(ErrorKind::kInput, folder.string(),
                std::filesystem::exists(folder) ? "is a file, expected a folder of task files"
                                                : "no such folder");
  }
  LoadedTasks all;
  std::set<std::string> seen;
  const auto phase = reporter.phase("reading tasks", 0, "tasks");
  const auto add = [&](const EvalTask& task) {
    if (seen.contains(task.name)) return true;
    std::optional<LoadedTask> loaded = load_task(task, folder, options, reporter);
    if (!loaded) return false;
    seen.insert(task.name);
    all.tasks.push_back(std::move(*loaded));
    phase->update(static_cast<std::int64_t>(all.tasks.size()));
    return true;
  };
  for (const std::string& name : names) {
    if (const EvalTask* task = find_eval_task(name)) {
      if (!add(*task)) throw_missing(name, folder, task->files);
      continue;
    }
    const EvalGroup* group = find_eval_group(name);
    if (group == nullptr)
      throw Error(ErrorKind::kUnsupported, "--task", format("'{}' is not a known task", name));
    std::vector<std::string> missing;
    const std::vector<const EvalTask*> members = tasks_of(*group);
    for (const EvalTask* task : members) {
      if (!add(*task)) missing.push_back(task->name);
    }
    if (missing.size() == members.size()) throw_missing(name, folder, members.front()->files);
    warn_missing(*group, missing, members.size(), reporter);
    all.missing.insert(all.missing.end(), missing.begin(), missing.end());
    for (const EvalGroup* one : groups_of(*group)) {
      if (std::find(all.groups.begin(), all.groups.end(), one) == all.groups.end())
        all.groups.push_back(one);
    }
  }
  return all;
}

std::vector<TextPair> text_pairs(const LoadedTask& loaded, const EvalDoc& doc) {
  std::vector<TextPair> pairs;
  switch (loaded.task->kind) {
    case TaskKind::kChoices:
      for (const std::string& choice : doc.choices)
        pairs.push_back({loaded.prefix + doc.context, " " + choice});
      break;
    case TaskKind::kContexts:
      for (const std::string& context : doc.choices)
        pairs.push_back({loaded.prefix + context, " " + doc.target});
      break;
    case TaskKind::kTarget:
      pairs.push_back({loaded.prefix + doc.context, doc.target});
      break;
    case TaskKind::kPage:
      pairs.push_back({"", doc.target});
      break;
  }
  return pairs;
}

namespace {

std::vector<LikelihoodRequest> make_requests(const LoadedTask& loaded, const PairEncoder& encoder,
                                             std::int64_t max_length) {
  std::vector<LikelihoodRequest> requests;
  for (const EvalDoc& doc : loaded.docs) {
    for (const TextPair& pair : text_pairs(loaded, doc)) {
      requests.push_back(encoder.encode(pair.context, pair.continuation, doc.where));
      const std::size_t length = requests.back().continuation.size();
      if (length > static_cast<std::size_t>(max_length)) {
        throw Error(
            ErrorKind::kInput, doc.where,
            format("an answer of {} tokens does not fit into prompts of {}", length, max_length))
            .hint(format("--max-length {}", length + 1));
      }
    }
  }
  return requests;
}

std::vector<std::vector<TokenId>> make_pages(const LoadedTask& loaded, const PairEncoder& encoder) {
  std::vector<std::vector<TokenId>> pages;
  for (const EvalDoc& doc : loaded.docs) pages.push_back(encoder.encode_page(doc.target));
  return pages;
}

std::vector<DocAnswer> answer_pages(const Decoder& model, const LoadedTask& loaded,
                                    const PairEncoder& encoder, const LikelihoodOptions& options,
                                    Reporter& reporter, const StopToken& stop,
                                    LikelihoodStats* stats) {
  const std::vector<std::vector<TokenId>> pages = make_pages(loaded, encoder);
  std::vector<DocAnswer> answers;
  for (const double value :
       rolling_log_likelihoods(model, pages, encoder.prefix(), options, reporter, stop, stats))
    answers.push_back({{{value, false}}, 0, 0});
  return answers;
}

std::vector<DocAnswer> answer_docs(const Decoder& model, const LoadedTask& loaded,
                                   const PairEncoder& encoder, const LikelihoodOptions& options,
                                   Reporter& reporter, const StopToken& stop,
                                   LikelihoodStats* stats) {
  if (loaded.task->kind == TaskKind::kPage)
    return answer_pages(model, loaded, encoder, options, reporter, stop, stats);
  const std::vector<Likelihood> values = log_likelihoods(
      model, make_requests(loaded, encoder, options.max_length), options, reporter, stop, stats);
  std::vector<DocAnswer> answers;
  std::size_t next = 0;
  for (const EvalDoc& doc : loaded.docs) {
    DocAnswer answer;
    const std::size_t count = loaded.task->kind == TaskKind::kTarget ? 1 : doc.choices.size();
    for (std::size_t i = 0; i < count; ++i) answer.answers.push_back(values[next++]);
    score_doc(*loaded.task, doc, answer);
    answers.push_back(std::move(answer));
  }
  return answers;
}

GroupResult score_group(const EvalGroup& group, const TaskScores& scores) {
  GroupResult result{&group, {}, 0, {}};
  std::vector<MemberScore> members;
  std::set<std::string> scored;
  for (const EvalTask* task : tasks_of(group)) {
    for (const TaskResult& one : scores.tasks) {
      if (one.task != task) continue;
      const auto n = static_cast<std::int64_t>(one.docs.size());
      members.push_back({n, one.metrics});
      result.n += n;
      scored.insert(task->name);
    }
  }
  for (const std::string& member : group.members) {
    const EvalGroup* inner = find_eval_group(member);
    const bool any = inner == nullptr ? scored.contains(member) : [&] {
      const std::vector<const EvalTask*> below = tasks_of(*inner);
      return std::any_of(below.begin(), below.end(),
                         [&](const EvalTask* t) { return scored.contains(t->name); });
    }();
    if (any) result.members.push_back(member);
  }
  if (!members.empty()) result.metrics = group_metrics(group, members);
  return result;
}

}  // namespace

std::int64_t count_tokens(const LoadedTasks& loaded, const PairEncoder& encoder) {
  std::int64_t tokens = 0;
  for (const LoadedTask& task : loaded.tasks) {
    if (task.task->kind == TaskKind::kPage) {
      for (const auto& page : make_pages(task, encoder))
        tokens += static_cast<std::int64_t>(page.size());
    } else {
      for (const LikelihoodRequest& request :
           make_requests(task, encoder, std::numeric_limits<std::int64_t>::max()))
        tokens += static_cast<std::int64_t>(request.context.size() + request.continuation.size());
    }
  }
  return tokens;
}

TaskScores score_tasks(const Decoder& model, const LoadedTasks& loaded, const PairEncoder& encoder,
                       const LikelihoodOptions& options, Reporter& reporter,
                       const StopToken& stop) {
  TaskScores scores;
  for (const LoadedTask& task : loaded.tasks) {
    TaskResult result;
    result.task = task.task;
    LikelihoodStats part{};
    try {
      result.docs = answer_docs(model, task, encoder, options, reporter, stop, &part);
    } catch (Error& error) {
      throw std::move(error).during(format("scoring task {}", task.task->name));
    }
    result.metrics = task_metrics(*task.task, task.docs, result.docs);
    scores.stats.seconds += part.seconds;
    scores.stats.forward_tokens += part.forward_tokens;
    scores.stats.request_tokens += part.request_tokens;
    scores.stats.truncated += part.truncated;
    scores.tasks.push_back(std::move(result));
  }
  for (const EvalGroup* group : loaded.groups) {
    GroupResult result = score_group(*group, scores);
    if (!result.metrics.empty()) scores.groups.push_back(std::move(result));
  }
  return scores;
}

}  // namespace espalier
