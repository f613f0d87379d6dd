// The cache file: rows of any lengths come back, and nothing that was made for something else does.
#include "espalier/methods/layer_pruning/prefix_cache.h"

#include <fstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

TEST(PrefixCacheFile, AnotherKeyOrATruncatedFileStartsAnew) {
  const fs::path folder = fs::path(::testing::TempDir()) / "espalier_prefix_cache_test";
  fs::remove_all(folder);
  const HiddenStateFile::Shape shape{{3, 1, 4, 2, 5}, 4, at::kFloat};
  const at::Tensor states = at::arange(60, at::kFloat).view({15, 4});
  {
    HiddenStateFile file(folder, "key", shape);
    file.append(states.narrow(0, 0, 4), 2);
    file.append(states.narrow(0, 4, 11), 3);
    EXPECT_TRUE(at::equal(
        file.read({4, 1, 4}),
        at::cat({states.narrow(0, 10, 5), states.narrow(0, 3, 1), states.narrow(0, 10, 5)})));
  }
  EXPECT_TRUE(HiddenStateFile::is_complete(folder, "key", shape));
  EXPECT_TRUE(at::equal(HiddenStateFile(folder, "key", shape).read({3}), states.narrow(0, 8, 2)));
  EXPECT_FALSE(HiddenStateFile::is_complete(folder, "other", shape));
  fs::resize_file(folder / "hidden.bin", 17);
  EXPECT_FALSE(HiddenStateFile::is_complete(folder, "key", shape));
  EXPECT_EQ(HiddenStateFile(folder, "key", shape).rows_done(), 0);
  std::ofstream(folder / "hidden.json") << "{ broken";
  EXPECT_EQ(HiddenStateFile(folder, "key", shape).rows_done(), 0);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace espalier::layer_pruning
