// Sizes as people write them, and how a limit turns into a way to hold the model.
#include "apps/cli/memory_options.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/forward_cost.h"

namespace espalier::cli {
namespace {

TEST(ParseBytes, FormsAndRefusals) {
  EXPECT_EQ(parse_bytes("2000000000", "--f").count, 2'000'000'000);
  EXPECT_EQ(parse_bytes("900M", "--f").count, 900ll << 20);
  EXPECT_EQ(parse_bytes("1.5G", "--f").count, 3ll << 29);
  for (const char* text : {"2GiB", "2GB", "2 g", "2048MiB"})
    EXPECT_EQ(parse_bytes(text, "--f").count, 2ll << 30) << text;
  for (const char* bad : {"", "G", "-1G", "0", "1X", "1GiBs", "nan", "1e300G", "1.5.5G"}) {
    try {
      parse_bytes(bad, "--memory-limit");
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(error.subject(), "--memory-limit");
    }
  }
}

DecoderConfig large_config() {
  DecoderConfig config;
  config.hidden_size = 2048, config.intermediate_size = 8192, config.num_layers = 32;
  config.num_heads = 16, config.num_kv_heads = 16, config.head_dim = 128;
  config.vocab_size = 1000;
  return config;
}

TEST(PlanMemory, LoadedWhenItFitsElseStreamedElseRefused) {
  const DecoderConfig config = large_config();
  const std::int64_t weights = weight_bytes(config, at::kFloat);
  MemoryOptions options;
  options.memory_limit = format("{}", weights + (4ll << 30));
  const MemoryPlan roomy = plan_memory(options, config, at::kFloat, at::kCPU, silent_reporter());
  EXPECT_EQ(roomy.residency, Residency::kResident);
  EXPECT_GT(roomy.working_bytes, 0);
  EXPECT_LT(roomy.working_bytes, 4ll << 30);
  options.memory_limit = format("{}", weights / 2);
  const MemoryPlan tight = plan_memory(options, config, at::kFloat, at::kCPU, silent_reporter());
  EXPECT_EQ(tight.residency, Residency::kStreamed);
  EXPECT_GT(tight.working_bytes, 0);
  EXPECT_LT(tight.working_bytes, weights / 2);
  options.memory_limit = "100M";
  EXPECT_THROW(plan_memory(options, config, at::kFloat, at::kCPU, silent_reporter()), Error);
}

}  // namespace
}  // namespace espalier::cli
