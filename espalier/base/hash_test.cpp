// Digests against published values.
#include "espalier/base/hash.h"

#include <string>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256, PublishedValues) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, FileEqualsItsBytes) {
  const TempFolder folder;
  const std::string bytes(3'000'001, 'x');  // more than one read
  EXPECT_EQ(sha256_file(folder.write("a", bytes)), sha256_hex(bytes));
}

TEST(Sha256, MissingFileIsAnInputError) {
  try {
    sha256_file("/nonexistent/file");
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_EQ(error.subject(), "/nonexistent/file");
  }
}

TEST(FastHash, EmptyInputIsTheXxh3Constant) {
  // XXH3-128 of nothing, from the xxHash specification's sanity values.
  EXPECT_EQ(FastHash().hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(FastHash, DoesNotDependOnHowBytesArrive) {
  const std::string bytes(100'000, 'q');
  FastHash whole, parts;
  whole.add(bytes);
  for (std::size_t at = 0; at < bytes.size(); at += 777)
    parts.add(std::string_view(bytes).substr(at, 777));
  EXPECT_EQ(whole.hex(), parts.hex());
  parts.add("x");
  EXPECT_NE(whole.hex(), parts.hex());
}

}  // namespace
}  // namespace espalier
