// Does running equal contexts once pay? The requests of lm-eval's piqa, with and without:
//   likelihood_sharing MODEL piqa_valid.jsonl ITEMS BATCH_TOKENS   prints one JSON line per way
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "espalier/eval/likelihood.h"
#include "espalier/io/table.h"

namespace {

using namespace espalier;

std::vector<LikelihoodRequest> piqa_requests(const Tokenizer& tokenizer, const char* file,
                                             std::int64_t items) {
  std::vector<LikelihoodRequest> requests;
  const auto rows = open_table(file);
  TableValue row;
  for (std::int64_t i = 0; i < items && rows->next(row); ++i) {
    const std::string context = "Question: " + *row.find("goal")->text() + "\nAnswer:";
    const std::vector<TokenId> left = tokenizer.encode(context);
    for (const char* name : {"sol1", "sol2"}) {
      const std::vector<TokenId> whole = tokenizer.encode(context + " " + *row.find(name)->text());
      requests.push_back({left, {whole.begin() + std::ssize(left), whole.end()}});
    }
  }
  return requests;
}

int run(char** words) {
  const std::vector<LikelihoodRequest> requests =
      piqa_requests(Tokenizer::load(words[1]), words[2], std::atoll(words[3]));
  const Decoder model = Decoder::load(words[1], at::kFloat, at::kCPU);
  LikelihoodOptions options;
  options.batch_tokens = std::atoll(words[4]);
  std::vector<Likelihood> first;
  for (const bool share : {true, false, true, false}) {
    options.share = share;
    LikelihoodStats stats;
    const std::vector<Likelihood> found =
        log_likelihoods(model, requests, options, silent_reporter(), never_stop(), &stats);
    double difference = 0;
    if (first.empty()) first = found;
    for (std::size_t i = 0; i < found.size(); ++i) {
      difference =
          std::max(difference, std::abs(found[i].log_likelihood - first[i].log_likelihood));
    }
    std::printf(
        "{\"share\": %s, \"seconds\": %.3f, \"forward_tokens\": %lld, \"requests\": %zu, "
        "\"difference\": %g}\n",
        share ? "true" : "false", stats.seconds, static_cast<long long>(stats.forward_tokens),
        requests.size(), difference);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fputs("usage: likelihood_sharing MODEL FILE ITEMS BATCH_TOKENS\n", stderr);
    return 2;
  }
  try {
    return run(words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
