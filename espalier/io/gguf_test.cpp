// GGUF read strictly and written exactly; headers spelled out byte by byte.
#include "espalier/io/gguf.h"

#include <cmath>
#include <limits>

#include "espalier/base/hash.h"
#include "espalier/io/gguf_internal.h"
#include "espalier/io/testing_internal.h"

namespace espalier {
namespace {

/// Writes GGUF by hand, apart from our own writer.
struct Builder {
  std::string bytes = "GGUF";

  template <class T>
  Builder& number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Builder& u32(std::uint32_t value) { return number(value); }
  Builder& u64(std::uint64_t value) { return number(value); }
  Builder& text(const std::string& value) {
    u64(value.size());
    bytes += value;
    return *this;
  }
  Builder& header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return u32(version).u64(tensors).u64(keys);
  }
  Builder& tensor(const std::string& name, std::vector<std::uint64_t> dims, std::uint32_t type,
                  std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  Builder& pad(std::size_t alignment = 32) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  Builder& data(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(i);
    return *this;
  }
};

Error open_error(const Builder& builder) {
  const TempFolder folder;
  const auto path = folder.write("x.gguf", builder.bytes);
  const Error error = error_of([&] { GgufFile::open(path); });
  EXPECT_EQ(error.subject(), path.string());
  return error;
}

TEST(Gguf, ReadsAFileSpelledOutByHand) {
  for (const std::uint32_t version : {2u, 3u}) {
    const TempFolder folder;
    Builder b;
    b.header(2, 3, version);
    b.text("general.architecture").u32(8).text("llama");
    b.text("llama.block_count").u32(4).u32(30);
    b.text("tokens").u32(9).u32(8).u64(2).text("a").text("");
    b.tensor("w", {32, 2}, 8, 0).tensor("n", {3}, 0, 96).pad().data(96).data(12);
    const GgufFile file = GgufFile::open(folder.write("x.gguf", b.bytes));
    EXPECT_EQ(file.architecture(), "llama");
    EXPECT_EQ(file.get_uint("llama.block_count"), 30u);
    EXPECT_EQ(file.get_strings("tokens"), (std::vector<std::string>{"a", ""}));
    EXPECT_EQ(file.alignment(), 32u);
    ASSERT_EQ(file.tensors().size(), 2u);
    const GgufTensor* w = file.find_tensor("w");
    ASSERT_NE(w, nullptr);
    EXPECT_EQ(w->shape, (std::vector<std::int64_t>{2, 32}));  // the file's dims reversed
    EXPECT_EQ(w->type, GgufType::kQ8_0);
    EXPECT_EQ(w->data.size(), 68u);
    EXPECT_EQ(std::to_integer<int>(w->data[1]), 1);
    EXPECT_EQ(file.find_tensor("n")->numel(), 3);
    EXPECT_EQ(std::to_integer<int>(file.find_tensor("n")->data[11]), 11);
    EXPECT_EQ(file.find_tensor("x"), nullptr);
    EXPECT_EQ(file.find("x"), nullptr);
  }
}

TEST(Gguf, HonoursAnotherAlignment) {
  const TempFolder folder;
  Builder b;
  b.header(1, 1).text("general.alignment").u32(4).u32(128);
  b.tensor("w", {4}, 0, 128).pad(128).data(128).data(16);
  const GgufFile file = GgufFile::open(folder.write("x.gguf", b.bytes));
  EXPECT_EQ(file.alignment(), 128u);
  EXPECT_EQ(std::to_integer<int>(file.find_tensor("w")->data[3]), 3);
}

TEST(Gguf, MagicAndVersion) {
  Builder magic;
  magic.bytes = "GGML";
  EXPECT_EQ(open_error(magic).kind(), ErrorKind::kInput);
  EXPECT_TRUE(contains(open_error(magic).what(), "not a GGUF file"));
  const Error old = open_error(Builder().header(0, 0, 1));
  EXPECT_EQ(old.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(contains(old.what(), "at byte 8: GGUF version 1, we read 2 and 3"));
  EXPECT_TRUE(contains(open_error(Builder().header(0, 0, 0x03000000)).what(), "big-endian"));
  Builder lfs;
  lfs.bytes = "version https://git-lfs.github.com/spec/v1\n";
  EXPECT_TRUE(contains(open_error(lfs).hint_text(), "git lfs pull"));
}

TEST(Gguf, CountsAndLengthsAreBoundedByTheFile) {
  EXPECT_TRUE(contains(open_error(Builder().header(0, 1ull << 60)).what(),
                       "the metadata count is 1152921504606846976, but only 0 bytes follow"));
  EXPECT_TRUE(contains(open_error(Builder().header(1ull << 60, 0)).what(), "the tensor count is"));
  EXPECT_TRUE(contains(open_error(Builder().header(0, 1).u64(1ull << 63).data(50)).what(),
                       "key 1 of 1 needs 9223372036854775808 bytes"));
  Builder array;
  array.header(0, 1).text("k").u32(9).u32(4).u64(1ull << 62).data(40);
  EXPECT_TRUE(
      contains(open_error(array).what(), "\"k\" claims 4611686018427387904 elements of type u32"));
  Builder strings;
  strings.header(0, 1).text("k").u32(9).u32(8).u64(100).data(40);
  EXPECT_TRUE(contains(open_error(strings).what(), "claims 100 elements of type string"));
  EXPECT_TRUE(contains(open_error(Builder().header(1, 0).data(30)).hint_text(), "truncated"));
}

TEST(Gguf, BadMetadataIsNamed) {
  EXPECT_TRUE(contains(open_error(Builder().header(0, 1).text("k").u32(13).u64(0)).what(),
                       "value type 13"));
  EXPECT_TRUE(
      contains(open_error(Builder().header(0, 1).text("key").u32(7).number<std::uint8_t>(2)).what(),
               "\"key\" is a boolean of value 2"));
  const Error nested =
      open_error(Builder().header(0, 1).text("k").u32(9).u32(9).u64(1).u64(0).u64(0));
  EXPECT_EQ(nested.kind(), ErrorKind::kUnsupported);
  Builder twice;
  twice.header(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1);
  EXPECT_TRUE(contains(open_error(twice).what(), "the key \"k\" appears twice"));
  for (const std::uint32_t alignment : {0u, 24u, 1u << 31}) {
    EXPECT_TRUE(contains(
        open_error(Builder().header(0, 1).text("general.alignment").u32(4).u32(alignment)).what(),
        "expected a power of two"));
  }
}

TEST(Gguf, BadTensorsAreNamed) {
  const Error type =
      open_error(Builder().header(1, 0).tensor("blk.0.w", {32}, 99, 0).pad().data(64));
  EXPECT_EQ(type.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(contains(type.what(), "tensor \"blk.0.w\" has type id 99"));
  EXPECT_TRUE(contains(type.hint_text(), "Q4_K"));
  EXPECT_TRUE(
      contains(open_error(Builder().header(1, 0).tensor("w", {33}, 8, 0).pad().data(64)).what(),
               "rows of 33 elements, but Q8_0 stores blocks of 32"));
  EXPECT_TRUE(contains(
      open_error(Builder().header(1, 0).tensor("w", {1, 1, 1, 1, 1}, 0, 0).pad().data(64)).what(),
      "5 dimensions"));
  EXPECT_TRUE(contains(
      open_error(Builder().header(1, 0).tensor("w", {1ull << 40, 1ull << 40}, 0, 0).pad()).what(),
      "more than 2^63 elements"));
  EXPECT_TRUE(
      contains(open_error(Builder().header(1, 0).tensor("w", {1ull << 62}, 0, 0).pad()).what(),
               "more than 2^63 bytes"));
  for (const std::vector<std::uint64_t>& dims :
       {std::vector<std::uint64_t>{0, 1ull << 40, 1ull << 40}, {1ull << 40, 1ull << 40, 0}}) {
    EXPECT_TRUE(contains(open_error(Builder().header(1, 0).tensor("w", dims, 0, 0).pad()).what(),
                         "more than 2^63 elements"));
  }
  EXPECT_TRUE(contains(
      open_error(
          Builder().header(2, 0).tensor("w", {1}, 0, 0).tensor("w", {1}, 0, 32).pad().data(64))
          .what(),
      "\"w\" appears twice"));
}

TEST(Gguf, OffsetsMustBeAlignedInsideAndApart) {
  EXPECT_TRUE(
      contains(open_error(Builder().header(1, 0).tensor("w", {4}, 0, 8).pad().data(64)).what(),
               "offset 8, not a multiple of the alignment 32"));
  const Error cut = open_error(Builder().header(1, 0).tensor("w", {4}, 0, 64).pad().data(72));
  EXPECT_TRUE(contains(cut.what(), "needs 16 bytes at offset 64 of the data"));
  EXPECT_TRUE(contains(cut.what(), "the file holds 72 of data"));
  EXPECT_TRUE(contains(cut.hint_text(), "truncated"));
  EXPECT_TRUE(
      contains(open_error(Builder().header(1, 0).tensor("w", {4}, 0, ~31ull).pad().data(64)).what(),
               "needs 16 bytes at offset 18446744073709551584"));
  EXPECT_TRUE(contains(
      open_error(
          Builder().header(2, 0).tensor("a", {9}, 0, 0).tensor("b", {1}, 0, 32).pad().data(64))
          .what(),
      "tensors \"a\" and \"b\" overlap"));
}

std::vector<std::pair<std::string, GgufValue>> one_of_each() {
  const auto scalar = [](GgufValueType type, auto value) {
    GgufValue result;
    result.type = type;
    result.value = value;
    return result;
  };
  std::vector<std::pair<std::string, GgufValue>> metadata{
      {"general.architecture", GgufValue::string("llama")},
      {"u8", scalar(GgufValueType::kU8, std::uint64_t{255})},
      {"i8", scalar(GgufValueType::kI8, std::int64_t{-128})},
      {"u16", scalar(GgufValueType::kU16, std::uint64_t{65535})},
      {"i16", scalar(GgufValueType::kI16, std::int64_t{-32768})},
      {"u32", GgufValue::u32(4000000000u)},
      {"i32", scalar(GgufValueType::kI32, std::int64_t{-2147483648})},
      {"u64", scalar(GgufValueType::kU64, ~std::uint64_t{0})},
      {"i64", scalar(GgufValueType::kI64, std::numeric_limits<std::int64_t>::min())},
      {"f32", GgufValue::f32(1e-5f)},
      {"f64", scalar(GgufValueType::kF64, 0.1)},
      {"nan", GgufValue::f32(std::numeric_limits<float>::quiet_NaN())},
      {"bool", GgufValue::boolean(true)},
      {"text", GgufValue::string(std::string("nul \0 \xc3\xa9", 8))},
      {"strings", GgufValue::strings({"", "a b", "\xff"})},
      {"empty strings", GgufValue::strings({})},
      {"i32s", GgufValue::i32s(std::vector<std::int32_t>{1, -1})},
      {"f32s", GgufValue::f32s(std::vector<float>{0.5f, -0.0f})}};
  return metadata;
}

TEST(GgufWriter, MetadataOfEveryTypeRoundTripsToTheSameBytes) {
  const TempFolder folder;
  GgufWriter(folder / "a.gguf", one_of_each(), {}).finish();
  const GgufFile first = GgufFile::open(folder / "a.gguf");
  EXPECT_EQ(first.metadata().size(), one_of_each().size());
  EXPECT_EQ(first.get_uint("u64"), ~std::uint64_t{0});
  EXPECT_EQ(std::get<std::int64_t>(first.find("i8")->value), -128);
  EXPECT_EQ(first.get_float("f32"), static_cast<double>(1e-5f));
  EXPECT_TRUE(std::isnan(*first.get_float("nan")));
  EXPECT_EQ(first.get_bool("bool"), true);
  EXPECT_EQ(first.get_string("text")->size(), 8u);
  EXPECT_EQ(first.get_ints("i32s"), (std::vector<std::int64_t>{1, -1}));
  EXPECT_EQ(first.get_floats("f32s"), (std::vector<double>{0.5, 0}));
  EXPECT_EQ(first.get_strings("empty strings")->size(), 0u);
  GgufWriter(folder / "b.gguf", first.metadata(), {}).finish();
  EXPECT_EQ(read_file(folder / "a.gguf"), read_file(folder / "b.gguf"));
}

TEST(Gguf, LookUpsOfAnotherTypeNameBoth) {
  const TempFolder folder;
  GgufWriter(folder / "a.gguf", one_of_each(), {}).finish();
  const GgufFile file = GgufFile::open(folder / "a.gguf");
  EXPECT_FALSE(file.get_uint("absent").has_value());
  EXPECT_FALSE(file.get_floats("absent").has_value());
  const Error array = error_of([&] { (void)file.get_uint("i32s"); });
  EXPECT_EQ(array.kind(), ErrorKind::kInput);
  EXPECT_TRUE(
      contains(array.what(), "the key \"i32s\" is an array of 2 i32, expected an integer >= 0"));
  EXPECT_TRUE(contains(error_of([&] { (void)file.get_uint("i8"); }).what(), "is i8"));  // negative
  EXPECT_THROW((void)file.get_string("u8"), Error);
  EXPECT_THROW((void)file.get_bool("u8"), Error);
  EXPECT_THROW((void)file.get_strings("i32s"), Error);
  EXPECT_THROW((void)file.get_ints("strings"), Error);
  EXPECT_THROW((void)file.get_floats("i32s"), Error);
  EXPECT_THROW((void)file.get_float("text"), Error);
  GgufWriter(folder / "b.gguf", {}, {}).finish();
  EXPECT_TRUE(contains(error_of([&] { GgufFile::open(folder / "b.gguf").architecture(); }).what(),
                       "general.architecture"));
}

TEST(GgufWriter, TensorsRoundTripThroughMemoryFilesAndPieces) {
  for (const std::uint64_t alignment : {32u, 64u}) {
    const TempFolder folder;
    std::vector<std::uint8_t> q(3 * 34), f(20);
    for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<std::uint8_t>(i * 7);
    for (std::size_t i = 0; i < f.size(); ++i) f[i] = static_cast<std::uint8_t>(i);
    const std::vector<GgufTensorPlan> plan{{"q", GgufType::kQ8_0, {3, 32}},
                                           {"f", GgufType::kF32, {5}},
                                           {"e", GgufType::kF16, {0, 4}},
                                           {"p", GgufType::kF32, {5}}};
    GgufWriter writer(folder / "a.gguf", {{"general.architecture", GgufValue::string("x")}}, plan,
                      alignment);
    writer.append(bytes_of(q));
    writer.append(bytes_of(f));
    writer.append(std::span<const std::byte>());
    writer.append(ByteProducer([&](const ByteSink& sink) {
      sink(bytes_of(f).first(7));
      sink(bytes_of(f).subspan(7));
    }));
    writer.finish();
    const std::string text = read_file(folder / "a.gguf");
    FastHash hash;
    hash.add(text);
    EXPECT_EQ(writer.digest(), hash.hex());
    EXPECT_EQ(writer.size(), text.size());
    EXPECT_EQ(text.size() % alignment, 0u);

    const GgufFile file = GgufFile::open(folder / "a.gguf");
    EXPECT_EQ(file.alignment(), alignment);
    EXPECT_EQ(file.find("general.alignment") != nullptr, alignment != 32);
    EXPECT_EQ(text_of(file.find_tensor("q")->data), text_of(bytes_of(q)));
    EXPECT_EQ(text_of(file.find_tensor("p")->data), text_of(bytes_of(f)));
    EXPECT_EQ(file.find_tensor("e")->shape, (std::vector<std::int64_t>{0, 4}));
    for (const GgufTensor& tensor : file.tensors()) {
      if (tensor.data.empty()) continue;
      EXPECT_EQ(
          static_cast<std::uint64_t>(tensor.data.data() - tensor.file->bytes().data()) % alignment,
          0u);
    }
    // Copied whole, metadata included: the same file again.
    GgufWriter copy(folder / "b.gguf", file.metadata(), plan);
    for (const GgufTensor& tensor : file.tensors()) copy.append(tensor);
    copy.finish();
    EXPECT_EQ(read_file(folder / "b.gguf"), text);
  }
}

TEST(GgufWriter, DepartingFromThePlanIsOurBugAndLeavesNothing) {
  const TempFolder folder;
  const auto kind_of = [&](auto function) { return error_of(function).kind(); };
  {
    GgufWriter writer(folder / "a.gguf", {}, {{"w", GgufType::kF32, {2}}});
    EXPECT_EQ(kind_of([&] { writer.append(bytes_of(std::vector<float>{1})); }),
              ErrorKind::kInternal);
    EXPECT_EQ(kind_of([&] { writer.finish(); }), ErrorKind::kInternal);
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "a.gguf"));
  const auto make = [&](std::vector<std::pair<std::string, GgufValue>> metadata,
                        std::vector<GgufTensorPlan> plan) {
    GgufWriter(folder / "b.gguf", metadata, std::move(plan)).finish();
  };
  EXPECT_EQ(kind_of([&] { make({}, {{"w", GgufType::kQ8_0, {33}}}); }), ErrorKind::kInternal);
  EXPECT_EQ(kind_of([&] {
              make({}, {{std::string(65, 'w'), GgufType::kF32, {1}}});
            }),
            ErrorKind::kInternal);
  EXPECT_EQ(kind_of([&] {
              make({}, {{"w", GgufType::kF32, {1}}, {"w", GgufType::kF32, {1}}});
            }),
            ErrorKind::kInternal);
  EXPECT_EQ(kind_of([&] {
              make({{"k", GgufValue::u32(1)}, {"k", GgufValue::u32(1)}}, {});
            }),
            ErrorKind::kInternal);
  GgufValue wide = GgufValue::u32(1);
  wide.value = std::uint64_t{1} << 40;
  EXPECT_TRUE(contains(error_of([&] { make({{"k", wide}}, {}); }).what(), "does not fit"));
  GgufValue mixed = GgufValue::u32(1);
  mixed.value = true;
  EXPECT_TRUE(contains(error_of([&] { make({{"k", mixed}}, {}); }).what(), "differ"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b.gguf"));
}

/// Two parts of one model, as the splitting tool of llama.cpp leaves them.
void write_parts(const TempFolder& folder, std::uint64_t second_number = 1,
                 std::uint64_t total = 2) {
  const auto u16 = [](std::uint64_t value) {
    GgufValue result;
    result.type = GgufValueType::kU16;
    result.value = value;
    return result;
  };
  GgufValue count;
  count.type = GgufValueType::kI32;
  count.value = static_cast<std::int64_t>(total);
  const std::vector<float> value{1.5f};
  for (const std::uint64_t number : {0u, 1u}) {
    std::vector<std::pair<std::string, GgufValue>> metadata;
    if (number == 0) metadata.emplace_back("general.architecture", GgufValue::string("llama"));
    metadata.emplace_back("split.no", u16(number == 0 ? 0 : second_number));
    metadata.emplace_back("split.count", u16(2));
    metadata.emplace_back("split.tensors.count", count);
    GgufWriter writer(folder / (number == 0 ? "m-00001-of-00002.gguf" : "m-00002-of-00002.gguf"),
                      metadata, {{number == 0 ? "a" : "b", GgufType::kF32, {1}}});
    writer.append(bytes_of(value));
    writer.finish();
  }
}

TEST(Gguf, SplitFilesOpenAsOneFromAnyPart) {
  const TempFolder folder;
  write_parts(folder);
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    const GgufFile file = GgufFile::open(folder / name);
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.tensors()[0].name, "a");
    EXPECT_EQ(file.tensors()[1].name, "b");
    EXPECT_EQ(file.architecture(), "llama");
    EXPECT_EQ(file.find("split.count"), nullptr);
    EXPECT_EQ(file.path(), folder / "m-00001-of-00002.gguf");
  }
}

TEST(Gguf, BrokenSplitsAreNamed) {
  const TempFolder folder;
  write_parts(folder, 3);
  EXPECT_TRUE(contains(error_of([&] { GgufFile::open(folder / "m-00001-of-00002.gguf"); }).what(),
                       "says it is part 4 of 2"));
  write_parts(folder, 1, 7);
  EXPECT_TRUE(contains(error_of([&] { GgufFile::open(folder / "m-00001-of-00002.gguf"); }).what(),
                       "promises 7 tensors (split.tensors.count), but its 2 parts hold 2"));
  write_parts(folder);
  std::filesystem::remove(folder / "m-00002-of-00002.gguf");
  const Error missing = error_of([&] { GgufFile::open(folder / "m-00001-of-00002.gguf"); });
  EXPECT_TRUE(contains(missing.what(), "part 2 of 2 is missing: m-00002-of-00002.gguf"));
  std::filesystem::rename(folder / "m-00001-of-00002.gguf", folder / "renamed.gguf");
  const Error renamed = error_of([&] { GgufFile::open(folder / "renamed.gguf"); });
  EXPECT_TRUE(contains(renamed.what(), "one of 2 parts"));
  EXPECT_FALSE(renamed.hint_text().empty());
}

}  // namespace
}  // namespace espalier
