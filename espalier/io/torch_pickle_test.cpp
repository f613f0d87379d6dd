// Files of torch.save: what they hold, in both formats; and everything that must be refused, with
// its words. The fixtures are made by torch itself; see testdata/README.md.
#include "espalier/io/torch_pickle.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/file.h"
#include "espalier/io/testing_internal.h"
#include "espalier/io/torch_pickle_internal.h"
#include "espalier/io/zip_directory_internal.h"

namespace espalier {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier/io/testdata/torch" / name;
}

TorchPickle read(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return read_torch_pickle(std::as_bytes(std::span(*owner)), "file", owner);
}

std::string message_of(const std::string& bytes) {
  const Error error = error_of([&] { read(bytes); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.to_string();
  EXPECT_NE(error.hint_text(), "");
  return error.message();
}

at::Tensor floats(std::vector<float> values, at::IntArrayRef shape) {
  return at::tensor(values).reshape(shape);
}

void expect_nested(const std::string& file) {
  SCOPED_TRACE(file);
  const TorchPickle found = load_torch_pickle(fixture(file));
  const at::Tensor base = at::arange(12, at::kFloat).reshape({3, 4});
  std::map<std::string, at::Tensor> expected{
      {"state_dict.module.conv1.weight", base},
      {"state_dict.module.conv1.turned", base.t()},
      {"state_dict.module.conv1.corner", floats({5, 6, 9, 10}, {2, 2})},
      {"state_dict.module.scale", floats({2, 4}, {2})},
      {"state_dict.module.count", at::scalar_tensor(7, at::kLong)},
      {"state_dict.module.empty", at::zeros({0, 5})},
      {"types.float32", at::tensor({1.5f, -2.0f})},
      {"types.float64", at::tensor({0.1, 2.0})},
      {"types.float16", at::tensor({0.5, -65504.0}).to(at::kHalf)},
      {"types.bfloat16", at::tensor({1.0, 3.0}).to(at::kBFloat16)},
      {"types.int64", at::tensor(std::vector<std::int64_t>{std::int64_t{1} << 40, -1})},
      {"types.int32", at::tensor({-7, 8})},
      {"types.int16", at::tensor({-300, 300}).to(at::kShort)},
      {"types.int8", at::tensor({-128, 127}).to(at::kChar)},
      {"types.uint8", at::tensor({0, 255}).to(at::kByte)},
      {"types.bool", at::tensor({1, 0}).to(at::kBool)},
      {"optimizer.state.0.step", at::scalar_tensor(5, at::kFloat)}};
  EXPECT_EQ(found.tensors.size(), expected.size());
  for (const auto& [path, tensor] : expected) {
    const auto it = found.tensors.find(path);
    ASSERT_NE(it, found.tensors.end()) << path;
    EXPECT_EQ(it->second.scalar_type(), tensor.scalar_type()) << path;
    EXPECT_TRUE(it->second.equal(tensor)) << path;
  }
  EXPECT_EQ(found.tensors.at("state_dict.module.conv1.turned").strides(), (at::IntArrayRef{1, 4}));
  EXPECT_EQ(found.ignored,
            (std::vector<std::string>{
                "epoch", "best", "name", "optimizer.state.0.momentum_buffer",
                "optimizer.param_groups.0.lr", "optimizer.param_groups.0.nesterov",
                "optimizer.param_groups.0.betas.0", "optimizer.param_groups.0.betas.1",
                "optimizer.param_groups.0.params.0", "size", "device", "dtype", "big"}));
}

TEST(TorchPickleTest, BothFormatsAndOtherProtocols) {
  for (const char* file : {"nested.pth", "nested_p4.pth", "nested_old.th", "nested_old_p5.th"})
    expect_nested(file);
}

TEST(TorchPickleTest, ZipTensorsAreViewsOfTheFile) {
  const std::string bytes = read_file(fixture("nested.pth"));
  const auto owner = std::make_shared<const std::string>(bytes);
  const TorchPickle found = read_torch_pickle(std::as_bytes(std::span(*owner)), "file", owner);
  const auto* data =
      static_cast<const char*>(found.tensors.at("state_dict.module.conv1.weight").const_data_ptr());
  EXPECT_TRUE(data >= owner->data() && data < owner->data() + owner->size());
}

TEST(TorchPickleTest, CommandsAreNamedAndNotRun) {
  for (const char* file : {"system.pth", "system_old.th"}) {
    const Error error = error_of([&] { load_torch_pickle(fixture(file)); });
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_TRUE(contains(error.message(),
                         "wants `posix.system`, which is not allowed; nothing was "
                         "run (byte "));
    EXPECT_TRUE(contains(error.hint_text(), "this reader runs no code of a file"));
  }
  EXPECT_FALSE(std::filesystem::exists("espalier_was_here"));
  EXPECT_TRUE(contains(message_of("\x80\x02"
                                  "cos\nsystem\nX\x02\0\0\0ls\x85R."),
                       "wants `os.system`"));
  EXPECT_TRUE(contains(message_of(std::string("\x80\x04\x8c\x08"
                                              "builtins\x8c\x04"
                                              "eval\x93.")),
                       "wants `builtins.eval`"));
  EXPECT_TRUE(contains(message_of("\x80\x02"
                                  "ctorch\nload\n."),
                       "wants `torch.load`"));
}

TEST(TorchPickleTest, OtherFilesAreToldApart) {
  EXPECT_EQ(message_of("hello"),
            "is no file of torch.save: neither its zip format nor the older one");
  EXPECT_EQ(message_of(""), "is no file of torch.save: neither its zip format nor the older one");
  EXPECT_EQ(message_of("\x80\x02}."),
            "is a pickle, but torch.save did not write it: it holds no storages");
  const Error packed = error_of([] { load_torch_pickle(fixture("packed.pth")); });
  EXPECT_EQ(packed.message(),
            "its member packed/data.pkl is compressed, which torch.save never does");
  EXPECT_TRUE(is_torch_pickle(fixture("nested.pth")));
  EXPECT_TRUE(is_torch_pickle(fixture("nested_old.th")));
  EXPECT_FALSE(is_torch_pickle(fixture("no such file")));
}

TEST(TorchPickleTest, EveryTruncationIsAnError) {
  for (const char* file : {"nested.pth", "nested_old.th"}) {
    const std::string bytes = read_file(fixture(file));
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      try {
        read(bytes.substr(0, length));
        ADD_FAILURE() << file << " cut at " << length << " was accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.to_string();
      }
    }
  }
}

// The machine on pickles spelled out.

std::string pickle_message(const std::string& body) { return message_of("\x80\x02" + body); }

TEST(PickleMachineTest, RefusesWhatStateDictsDoNotNeed) {
  EXPECT_TRUE(contains(message_of("\x80\x01}."), "is a pickle of protocol 1; 2 to 5 can be read"));
  EXPECT_TRUE(contains(pickle_message("I7\n."), "uses opcode 0x49, which is not allowed (byte 2"));
  EXPECT_TRUE(contains(pickle_message("\x8f."), "uses opcode 0x8f"));  // EMPTY_SET
  EXPECT_TRUE(contains(pickle_message("."), "takes a value where none is"));
  EXPECT_TRUE(contains(pickle_message("t."), "closes a group that was not opened"));
  EXPECT_TRUE(contains(pickle_message("}N(a."), "takes a value where none is"));
  EXPECT_TRUE(contains(pickle_message("h\x05."), "memo entry 5, which was never stored"));
  EXPECT_TRUE(contains(pickle_message("X\xff\xff\xff\x7fh."), "reaches past the end"));
  EXPECT_TRUE(contains(pickle_message("NNNs."), "adds dict entries to something else"));
  EXPECT_TRUE(contains(pickle_message("}(Nu."), "has a key without a value"));
  EXPECT_TRUE(contains(pickle_message("}Na."), "adds list items to something else"));
  EXPECT_TRUE(contains(pickle_message("NN\x85R."), "calls something that has no name"));
  EXPECT_TRUE(contains(pickle_message("]}b."), "gives a state to something that has none"));
}

/// A legacy file around this object pickle (without PROTO), these keys and this tail.
std::string legacy(const std::string& object, const std::string& keys, const std::string& tail) {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  return magic + "\x80\x02M\xe9\x03.\x80\x02}X\x0d" + std::string(3, '\0') +
         "little_endian\x88s.\x80\x02" + object + "\x80\x02" + keys + tail;
}

std::string text(const std::string& value) {
  std::string pickle = "X";
  pickle += static_cast<char>(value.size());
  pickle.append(3, '\0');
  return pickle.append(value);
}

/// {"w": tensor of FloatStorage "0"}: shape, strides as tuples of BININT1.
std::string object(const std::string& offset, const std::string& shape, const std::string& strides,
                   const std::string& numel = "K\x04", const std::string& type = "Float") {
  std::string pickle = "}";
  for (const std::string& part :
       {text("w"), std::string("ctorch._utils\n_rebuild_tensor_v2\n(("), text("storage"),
        std::string("ctorch\n"), type, std::string("Storage\n"), text("0"), text("cpu"), numel,
        std::string("NtQ"), offset, std::string("("), shape, std::string("t("), strides,
        std::string("t\x89}tRs.")})
    pickle += part;
  return pickle;
}

std::string four_floats() {
  const std::vector<float> values{1, 2, 3, 4};
  const std::int64_t count = 4;
  return std::string(reinterpret_cast<const char*>(&count), 8) +
         std::string(reinterpret_cast<const char*>(values.data()), 16);
}

const std::string kKeys = "](" + text("0") + "e.";

TEST(PickleMachineTest, TensorsStayInsideTheirStorage) {
  const std::string tail = four_floats();
  const TorchPickle good =
      read(legacy(object(std::string("K\0", 2), "K\x02K\x02", "K\x02K\x01"), kKeys, tail));
  EXPECT_TRUE(good.tensors.at("w").equal(floats({1, 2, 3, 4}, {2, 2})));
  EXPECT_EQ(message_of(legacy(object("K\x01", "K\x02K\x02", "K\x02K\x01"), kKeys, tail)),
            "`w` reaches outside its storage of 4 elements");
  EXPECT_EQ(message_of(
                legacy(object(std::string("K\0", 2), "K\x05", std::string("K\0", 2)), kKeys, tail)),
            "`w` repeats its storage: 5 elements of 4");
  const std::string huge("J\xff\xff\xff\x7f", 5);
  EXPECT_EQ(message_of(legacy(object(std::string("K\0", 2), huge + huge + huge, huge + huge + huge),
                              kKeys, tail)),
            "`w` reaches outside its storage of 4 elements");
  EXPECT_EQ(message_of(legacy(object("J\xff\xff\xff\xff", "K\x02", "K\x01"), kKeys, tail)),
            "`w` has a offset that is no number from 0 up");
  EXPECT_EQ(message_of(legacy(object(std::string("K\0", 2), "K\x02K\x02", "K\x01"), kKeys, tail)),
            "`w` has 2 dimensions but 1 strides");
  EXPECT_TRUE(contains(
      message_of(legacy(object(std::string("K\0", 2), "K\x02", "K\x01", "K\x04", "Quantized"),
                        kKeys, tail)),
      "wants `torch.QuantizedStorage`"));
}

TEST(PickleMachineTest, LegacyStoragesMustMatch) {
  const std::string w = object(std::string("K\0", 2), "K\x02", "K\x01"), tail = four_floats();
  EXPECT_EQ(message_of(legacy(w, "].", "")), "does not hold storage 0");
  EXPECT_EQ(message_of(legacy(w, "](" + text("1") + "e.", tail)),
            "lists storage `1`, which no tensor uses");
  EXPECT_EQ(message_of(legacy(w, kKeys, tail + "x")), "has 1 bytes too many");
  EXPECT_EQ(message_of(legacy(w, kKeys, tail.substr(0, 20))),
            "ends inside storage 0: 12 bytes are left of 16");
  std::string fewer = tail;
  fewer[0] = 3;
  EXPECT_EQ(message_of(legacy(w, kKeys, fewer)), "storage 0 has 3 elements, expected 4");
  std::string big = legacy(w, kKeys, tail);
  big.replace(big.find("little_endian\x88"), 14, "little_endian\x89");
  EXPECT_EQ(message_of(big), "was written on a big-endian machine");
}

TEST(PickleMachineTest, CirclesAndFloodsEnd) {
  // a = {}; a["a"] = a
  EXPECT_TRUE(contains(
      message_of(legacy("}q" + std::string(1, '\0') + text("a") + "h" + std::string(1, '\0') + "s.",
                        "].", "")),
      "is nested deeper than 100"));
  // 40 lists, each holding the one before twice: 2^40 values when walked.
  std::string flood = "N";
  for (int i = 0; i < 40; ++i)
    flood +=
        "q\x01](h\x01h\x01"
        "e0](h\x01h\x01"
        "e";
  EXPECT_TRUE(contains(message_of(legacy(flood + ".", "].", "")),
                       "is one of too many values for a file of this size"));
}

TEST(PickleMachineTest, PythonTwoDictsAndText) {
  // OrderedDict([["w", None]]) with byte strings, as Python 2 wrote it.
  const TorchPickle found =
      read(legacy("ccollections\nOrderedDict\n](]q\x02(U\x01wNee\x85R.", "].", ""));
  EXPECT_EQ(found.ignored, (std::vector<std::string>{"w"}));
}

// Zip directories spelled out.

template <class T>
std::string le(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

struct ZipText {
  std::string body, directory;
  std::uint64_t count = 0;

  void add(const std::string& name, const std::string& data, bool zip64 = false,
           std::uint16_t method = 0) {
    const std::string extra =
        zip64 ? le<std::uint16_t>(1) + le<std::uint16_t>(24) + le<std::uint64_t>(data.size()) +
                    le<std::uint64_t>(data.size()) + le<std::uint64_t>(body.size())
              : "";
    const std::uint32_t size = zip64 ? 0xffffffff : static_cast<std::uint32_t>(data.size());
    const std::uint32_t at = zip64 ? 0xffffffff : static_cast<std::uint32_t>(body.size());
    const std::string middle = le<std::uint16_t>(0) + le<std::uint16_t>(method) +
                               le<std::uint32_t>(0) + le<std::uint32_t>(0) + le(size) + le(size) +
                               le(static_cast<std::uint16_t>(name.size()));
    directory += "PK\1\2" + le<std::uint32_t>(0) + middle +
                 le(static_cast<std::uint16_t>(extra.size())) + std::string(10, '\0') + le(at) +
                 name + extra;
    directory.resize(directory.size());
    body += "PK\3\4" + le<std::uint16_t>(0) + middle + le<std::uint16_t>(0) + name + data;
    ++count;
  }

  std::string text(bool zip64 = false) const {
    const std::uint64_t begin = body.size(), size = directory.size();
    std::string end;
    if (zip64) {
      end = "PK\6\6" + le<std::uint64_t>(44) + std::string(12, '\0') + le(count) + le(count) +
            le(size) + le(begin);
      end +=
          "PK\6\7" + le<std::uint32_t>(0) + le<std::uint64_t>(begin + size) + le<std::uint32_t>(1);
    }
    const auto small = [&](std::uint64_t value) {
      return zip64 ? le<std::uint32_t>(0xffffffff) : le(static_cast<std::uint32_t>(value));
    };
    const std::string entries =
        zip64 ? le<std::uint16_t>(0xffff) : le(static_cast<std::uint16_t>(count));
    return body + directory + end + "PK\5\6" + le<std::uint32_t>(0) + entries + entries +
           small(size) + small(begin) + le<std::uint16_t>(0);
  }
};

std::vector<ZipMember> members_of(const std::string& bytes) {
  return read_zip_directory(std::as_bytes(std::span(bytes)), "file");
}

TEST(ZipDirectoryTest, FindsMembersAlsoIn64Bits) {
  for (const bool wide : {false, true}) {
    ZipText zip;
    zip.add("a/data.pkl", "hello", wide);
    zip.add("a/data/0", "", wide);
    zip.add("a/version", "3", wide);
    const std::string bytes = zip.text(wide);
    const auto members = members_of(bytes);
    ASSERT_EQ(members.size(), 3u) << wide;
    EXPECT_EQ(members[0].name, "a/data.pkl");
    EXPECT_EQ(text_of(members[0].data), "hello");
    EXPECT_EQ(text_of(members[2].data), "3");
  }
}

TEST(ZipDirectoryTest, DamageIsNamed) {
  ZipText zip;
  zip.add("a/x", "hello");
  zip.add("a/y", "again");
  const auto message = [](const std::string& bytes) {
    return error_of([&] { members_of(bytes); }).message();
  };
  const std::string good = zip.text();
  EXPECT_TRUE(contains(message(good.substr(0, good.size() - 1)), "it has no end record"));
  std::string bad = good;
  bad.replace(0, 4, "XXXX");
  EXPECT_EQ(message(bad), "is a damaged zip file: its member a/x does not start at byte 0");
  bad = good;
  bad.replace(zip.body.size(), 4, "XXXX");
  EXPECT_TRUE(contains(message(bad), "its directory has no entry at byte"));
  ZipText twice;
  twice.add("a/x", "1");
  twice.add("a/x", "2");
  EXPECT_TRUE(contains(message(twice.text()), "it has two members called a/x"));
  ZipText over = zip;
  over.directory += over.directory.substr(0, over.directory.size() / 2);
  over.directory[over.directory.size() - 1] = 'z';  // a/z at the place of a/x
  over.count = 3;
  EXPECT_TRUE(contains(message(over.text()), "lie over each other"));
  ZipText packed;
  packed.add("a/x", "1", false, 8);
  EXPECT_TRUE(contains(message(packed.text()), "its member a/x is compressed"));
}

TEST(TorchPickleTest, ZipStoragesMustMatch) {
  const std::string w = "\x80\x02" + object(std::string("K\0", 2), "K\x02", "K\x01");
  const auto archive = [&](const std::string& storage, const std::string& order) {
    ZipText zip;
    zip.add("a/data.pkl", w);
    zip.add("a/byteorder", order);
    if (!storage.empty()) zip.add("a/data/0", storage);
    return zip.text();
  };
  const std::string floats4 = four_floats().substr(8);
  EXPECT_TRUE(read(archive(floats4, "little")).tensors.at("w").equal(floats({1, 2}, {2})));
  EXPECT_EQ(message_of(archive(floats4, "big")), "was written on a big-endian machine");
  EXPECT_EQ(message_of(archive("", "little")), "has no member a/data/0");
  EXPECT_EQ(message_of(archive(floats4 + "x", "little")),
            "member a/data/0 has 17 bytes, expected 16");
  ZipText none;
  none.add("a/version", "3");
  EXPECT_EQ(message_of(none.text()), "is a zip file without data.pkl; torch.save did not write it");
  ZipText script;
  script.add("a/data.pkl", w);
  script.add("a/constants.pkl", w);
  EXPECT_EQ(message_of(script.text()),
            "is a TorchScript archive, which holds a program and not only tensors");
}

}  // namespace
}  // namespace espalier
