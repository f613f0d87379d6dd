// Reading strictly, writing what others read, and every way a file can be wrong.
#include "espalier/io/safetensors.h"

#include <csignal>
#include <fstream>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/random.h"
#include "espalier/base/units.h"
#include "espalier/io/testing_internal.h"

namespace espalier {
namespace {

Error open_error(const std::string& header, std::size_t data_bytes) {
  const TempFolder folder;
  const auto path = folder.write("x.safetensors", safetensors_text(header, data_bytes));
  const Error error = error_of([&] { SafetensorsFile::open(path); });
  EXPECT_EQ(error.subject(), path.string());
  return error;
}

TEST(Safetensors, ReadsAFileSpelledOutByHand) {
  const TempFolder folder;
  const auto path = folder.write(
      "x", safetensors_text(
               R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},)"
               R"("a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},)"
               R"("e":{"dtype":"F32","shape":[0],"data_offsets":[6,6]},"__metadata__":{"k":"v"}} )",
               6));
  const SafetensorsFile file = SafetensorsFile::open(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "a");  // in the order of offsets, not of the header
  EXPECT_EQ(file.tensors()[1].name, "b");
  const StoredTensor* b = file.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, Dtype::kU8);
  EXPECT_EQ(b->shape, std::vector<std::int64_t>{2});
  EXPECT_EQ(text_of(b->data), std::string("\x04\x05"));
  EXPECT_EQ(b->file_offset(), std::filesystem::file_size(path) - 2);
  EXPECT_EQ(file.find("e")->numel(), 0);
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.metadata().at("k"), "v");
}

TEST(Safetensors, ScalarsHaveOneElement) {
  const TempFolder folder;
  const auto path = folder.write(
      "x", safetensors_text(R"({"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})", 8));
  EXPECT_EQ(SafetensorsFile::open(path).find("s")->numel(), 1);
}

TEST(Safetensors, LengthsAreBoundedByTheFile) {
  const TempFolder folder;
  const Error tiny = error_of([&] { SafetensorsFile::open(folder.write("a", "abc")); });
  EXPECT_TRUE(contains(tiny.what(), "has 3 bytes, too few"));
  std::string huge(8, '\xff');
  const Error limit = error_of([&] { SafetensorsFile::open(folder.write("b", huge + "{}")); });
  EXPECT_TRUE(contains(limit.what(), "over the limit of 100000000"));
  std::string cut = safetensors_text("{}", 0);
  cut[0] = 100;
  const Error truncated = error_of([&] { SafetensorsFile::open(folder.write("c", cut)); });
  EXPECT_TRUE(contains(truncated.what(), "header length of 100, but only 2 bytes follow"));
  EXPECT_TRUE(contains(truncated.hint_text(), "truncated"));
}

TEST(Safetensors, GitLfsPointersAreNamed) {
  const TempFolder folder;
  const auto path =
      folder.write("x", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  const Error error = error_of([&] { SafetensorsFile::open(path); });
  EXPECT_TRUE(contains(error.what(), "Git LFS pointer"));
  EXPECT_TRUE(contains(error.hint_text(), "git lfs pull"));
}

TEST(Safetensors, BrokenHeadersNameWhatIsWrong) {
  EXPECT_TRUE(contains(open_error("[]", 0).what(), "does not begin with '{'"));
  EXPECT_TRUE(contains(open_error("{\"a\":", 0).what(), "not valid JSON at byte"));
  EXPECT_TRUE(contains(open_error("{} x", 0).what(), "not valid JSON"));
  EXPECT_TRUE(contains(open_error("{\"a\xff\":{}}", 0).what(), "not valid JSON"));
  EXPECT_TRUE(contains(open_error(R"({"a":1})", 0).what(),
                       "tensor \"a\" is the number 1, expected an object"));
  EXPECT_TRUE(contains(open_error(R"({"a":{"dtype":"F32","shape":[1]}})", 4).what(),
                       "tensor \"a\" has no data_offsets"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4).what(),
               "the number -1 in its shape"));
  EXPECT_TRUE(contains(
      open_error(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4).what(), "1.5"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4).what(),
               "an array"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,5]}})", 4).what(),
               "more than two"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4).what(),
               "fewer than two"));
  EXPECT_TRUE(contains(open_error(R"({"__metadata__":{"a":1}})", 0).what(),
                       "__metadata__ holds the number 1"));
  EXPECT_TRUE(contains(
      open_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4).what(),
      "unknown field \"x\""));
}

TEST(Safetensors, UnknownDtypesAreUnsupported) {
  const Error error = open_error(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1);
  EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(contains(error.what(), "tensor \"a\" has dtype \"F4\""));
}

TEST(Safetensors, DuplicatesAreRefused) {
  EXPECT_TRUE(contains(open_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                  2)
                           .what(),
                       "tensor \"a\" appears twice"));
  EXPECT_TRUE(contains(
      open_error(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1).what(),
      "the field \"dtype\" twice"));
  EXPECT_TRUE(contains(open_error(R"({"__metadata__":{"a":"1","a":"2"}})", 0).what(),
                       "holds the key \"a\" twice"));
}

TEST(Safetensors, SizesAndRangesMustAgree) {
  const Error size = open_error(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}})", 20);
  EXPECT_TRUE(contains(size.what(),
                       "shape [2, 3] of F32, which needs 24 bytes, but data_offsets give it 20"));
  const Error overflow = open_error(
      R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0);
  EXPECT_TRUE(contains(overflow.what(), "over 2^63"));
  for (const char* shape : {"[0,4611686018427387904,4]", "[4611686018427387904,4,0]"}) {
    const Error empty = open_error(
        format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":[0,0]}}}})", shape), 0);
    EXPECT_TRUE(contains(empty.what(), "over 2^63"));
  }
  const Error end = open_error(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 8);
  EXPECT_TRUE(contains(end.what(), "ends at byte 9 of the data, but the file holds only 8"));
  EXPECT_TRUE(contains(end.hint_text(), "truncated"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", 2).what(),
               "ends at 1 before it begins at 2"));
}

TEST(Safetensors, HolesOverlapsAndTrailingBytesAreRefused) {
  const std::string first = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
  EXPECT_TRUE(contains(
      open_error(first + R"("b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})", 7).what(),
      "begins at byte 5 of the data, expected 4 (after a): a hole"));
  EXPECT_TRUE(contains(
      open_error(first + R"("b":{"dtype":"U8","shape":[3],"data_offsets":[3,6]}})", 6).what(),
      "begins at byte 3 of the data, expected 4 (after a): tensors overlap"));
  EXPECT_TRUE(
      contains(open_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 5).what(),
               "end at byte 4 of the data, but the file goes on to 5"));
}

TEST(Safetensors, ProblemsAreListedTogether) {
  const Error error = open_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,3]},)"
                                 R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,5]}})",
                                 5);
  EXPECT_TRUE(contains(error.what(), "2 problems:"));
  EXPECT_TRUE(contains(error.what(), "\"a\""));
  EXPECT_TRUE(contains(error.what(), "\"b\""));
}

TEST(SafetensorsWriter, WritesTheFormatExactly) {
  const TempFolder folder;
  {
    SafetensorsWriter writer(folder / "x", {{"w", Dtype::kU8, {3}}, {"s", Dtype::kU8, {}}});
    writer.append(bytes_of(std::vector<std::uint8_t>{7, 8, 9}));
    writer.append(bytes_of(std::vector<std::uint8_t>{1}));
    writer.finish();
    const std::string text = read_file(folder / "x");
    FastHash hash;
    hash.add(text);
    EXPECT_EQ(writer.digest(), hash.hex());
    EXPECT_EQ(writer.size(), text.size());
  }
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
      R"("s":{"dtype":"U8","shape":[],"data_offsets":[3,4]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(read_file(folder / "x"), safetensors_text(padded, 0) + "\x07\x08\x09\x01");
}

TEST(SafetensorsWriter, RoundTripThroughMemoryAndThroughFiles) {
  const TempFolder folder;
  RandomStream random(1);
  std::vector<float> a(300'000);  // larger than one chunk of the copy
  for (float& value : a) value = static_cast<float>(random.uniform());
  const std::vector<std::int64_t> b{1, -2, 3};
  {
    SafetensorsWriter writer(
        folder / "x",
        {{"a", Dtype::kF32, {300, 1000}}, {"b", Dtype::kI64, {3}}, {"e", Dtype::kBF16, {0, 5}}},
        {{"format", "pt"}, {"note", "\xc3\xa9 \"quoted\"\n"}});
    writer.append(bytes_of(a));
    writer.append(bytes_of(b));
    writer.append(std::span<const std::byte>());
    writer.finish();
  }
  const SafetensorsFile first = SafetensorsFile::open(folder / "x");
  EXPECT_EQ(first.metadata().at("note"), "\xc3\xa9 \"quoted\"\n");
  EXPECT_EQ(text_of(first.find("a")->data), text_of(bytes_of(a)));
  EXPECT_EQ(first.find("a")->file_offset() % 8, 0u);
  {
    SafetensorsWriter writer(
        folder / "y",
        {{"b2", Dtype::kI64, {3}}, {"a2", Dtype::kF32, {300, 1000}}, {"e2", Dtype::kBF16, {0, 5}}});
    writer.append(*first.find("b"));
    writer.append(*first.find("a"));
    writer.append(*first.find("e"));
    writer.finish();
  }
  const SafetensorsFile second = SafetensorsFile::open(folder / "y");
  EXPECT_EQ(text_of(second.find("a2")->data), text_of(bytes_of(a)));
  EXPECT_EQ(text_of(second.find("b2")->data), text_of(bytes_of(b)));
  EXPECT_EQ(second.find("e2")->shape, (std::vector<std::int64_t>{0, 5}));
}

TEST(SafetensorsWriter, PiecesMakeATensor) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {4}}});
  writer.append(ByteProducer([](const ByteSink& sink) {
    sink(bytes_of(std::vector<std::uint8_t>{1, 2, 3}));
    sink(bytes_of(std::vector<std::uint8_t>{4}));
  }));
  writer.finish();
  EXPECT_EQ(text_of(SafetensorsFile::open(folder / "x").find("a")->data), "\x01\x02\x03\x04");
}

TEST(SafetensorsWriter, WithoutFinishNothingIsLeft) {
  const TempFolder folder;
  {
    SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {1}}});
    writer.append(bytes_of(std::vector<std::uint8_t>{1}));
    EXPECT_TRUE(std::filesystem::exists(folder / "x"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(SafetensorsWriter, DepartingFromThePlanIsOurBug) {
  const TempFolder folder;
  const std::vector<std::uint8_t> one{1};
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {2}}});
  EXPECT_EQ(error_of([&] { writer.append(bytes_of(one)); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] { writer.finish(); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] {
              SafetensorsWriter(folder / "y", {{"a", Dtype::kU8, {1}}, {"a", Dtype::kU8, {1}}});
            }).kind(),
            ErrorKind::kInternal);
  EXPECT_FALSE(std::filesystem::exists(folder / "y"));
}

TEST(SafetensorsWriter, ProgressMayStopTheWrite) {
  const TempFolder folder;
  struct Stop {};
  const std::vector<std::uint8_t> bytes(3 << 20);
  std::uint64_t last = 0;
  int calls = 0;
  {
    SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {3 << 20}}});
    writer.set_on_bytes([&](std::uint64_t done) {
      EXPECT_GT(done, last);
      last = done;
      if (++calls == 3) throw Stop{};
    });
    EXPECT_THROW(writer.append(bytes_of(bytes)), Stop);
  }
  EXPECT_LT(last, bytes.size());
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(SafetensorsWriter, AFullDiskIsAResourceErrorAndLeavesNothing) {
  // RLIMIT_FSIZE stands in for a quota: write() fails with EFBIG beyond it.
  const TempFolder folder;
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 1 << 20, before.rlim_max };
  const std::vector<std::uint8_t> bytes(4 << 20);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Error error = error_of([&] {
    SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {4 << 20}}});
    writer.append(bytes_of(bytes));
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_EQ(error.subject(), (folder / "x").string());
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(SafetensorsWriter, FullDeviceHasAHint) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  const TempFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "x");
  const Error error = error_of([&] { SafetensorsWriter(folder / "x", {{"a", Dtype::kU8, {1}}}); });
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_TRUE(contains(error.hint_text(), "free some space"));
}

TEST(SafetensorsWriter, UnwritablePlacesAreResourceErrors) {
  const Error error = error_of([] { SafetensorsWriter("/nonexistent/x", {}); });
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_TRUE(contains(error.what(), "cannot be written"));
}

TEST(SafetensorsWriter, ASourceThatShrinksIsNoticed) {
  const TempFolder folder;
  const auto path = folder.write(
      "x", safetensors_text(R"({"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}})", 64));
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::filesystem::resize_file(path, 70);
  const Error error = error_of([&] {
    SafetensorsWriter writer(folder / "y", {{"a", Dtype::kU8, {64}}});
    writer.append(*file.find("a"));
  });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_TRUE(contains(error.what(), "ended at byte 70"));
  EXPECT_FALSE(std::filesystem::exists(folder / "y"));
}

TEST(SafetensorsWriter, CopyingDoesNotGrowTheResidentSet) {
  const TempFolder folder;
  constexpr std::int64_t kSize = 96 << 20;
  {
    const std::vector<std::uint8_t> part(8 << 20, 3);
    SafetensorsWriter writer(folder / "x", {{"a", Dtype::kU8, {kSize}}});
    writer.append(ByteProducer([&](const ByteSink& sink) {
      for (std::int64_t done = 0; done < kSize; done += 8 << 20) sink(bytes_of(part));
    }));
    writer.finish();
  }
  const SafetensorsFile file = SafetensorsFile::open(folder / "x");
  const std::int64_t before = peak_rss().count;
  SafetensorsWriter writer(folder / "y", {{"a", Dtype::kU8, {kSize}}});
  writer.append(*file.find("a"));
  writer.finish();
  EXPECT_LT(peak_rss().count - before, 8 << 20);
}

}  // namespace
}  // namespace espalier
