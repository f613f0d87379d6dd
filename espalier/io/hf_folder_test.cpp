// Hugging Face folders: whole, broken in each way, written in shards; and finding models.
#include "espalier/io/hf_folder.h"

#include <cstdlib>
#include <optional>

#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/testing_internal.h"

namespace espalier {
namespace {

void write_shard(const TempFolder& folder, const std::string& file,
                 const std::vector<std::string>& names) {
  std::vector<TensorPlan> plan;
  for (const std::string& name : names) plan.push_back({name, Dtype::kU8, {4}});
  SafetensorsWriter writer(folder / file, plan);
  for (std::size_t i = 0; i < names.size(); ++i) {
    writer.append(bytes_of(std::vector<std::uint8_t>(4, static_cast<std::uint8_t>(i + 1))));
  }
  writer.finish();
}

Error open_error(const TempFolder& folder) {
  return error_of([&] { HfFolder::open(folder.path()); });
}

TEST(HfFolder, OneFile) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"llama"})");
  folder.write("tokenizer.json", "{}");
  folder.write("chat_template.jinja", "x");
  folder.write("LICENSE", "x");
  folder.write("README.md", "x");
  folder.write("pytorch_model.bin", "x");
  folder.write("run/manifest.json", "{}");
  folder.write(".gitattributes", "x");
  write_shard(folder, "model.safetensors", {"a", "b"});
  const HfFolder model = HfFolder::open(folder.path());
  EXPECT_EQ(model.config_text(), R"({"model_type":"llama"})");
  EXPECT_EQ(model.tensors().size(), 2u);
  EXPECT_EQ(text_of(model.find("b")->data), "\x02\x02\x02\x02");
  EXPECT_EQ(model.find("c"), nullptr);
  EXPECT_EQ(model.weight_bytes(), 8u);
  EXPECT_EQ(model.companion_files(),
            (std::vector<std::string>{"LICENSE", "chat_template.jinja", "tokenizer.json"}));
}

TEST(HfFolder, ShardsThroughTheIndexAndThroughLinks) {
  const TempFolder blobs, folder;
  write_shard(blobs, "blob", {"b"});
  folder.write("config.json", "{}");
  write_shard(folder, "model-00001-of-00002.safetensors", {"a"});
  std::filesystem::create_symlink(blobs / "blob", folder / "model-00002-of-00002.safetensors");
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":999},"weight_map":{"b":"model-00002-of-00002.safetensors",)"
      R"("a":"model-00001-of-00002.safetensors"}})");
  const HfFolder model = HfFolder::open(folder.path());  // a wrong total_size is not an error
  ASSERT_EQ(model.tensors().size(), 2u);
  EXPECT_EQ(model.tensors()[0].name, "a");
  EXPECT_TRUE(model.companion_files().empty());
}

TEST(HfFolder, EveryInconsistencyIsListed) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  write_shard(folder, "s1.safetensors", {"a", "stray", "twice"});
  write_shard(folder, "s2.safetensors", {"twice"});
  folder.write(
      "model.safetensors.index.json",
      R"({"weight_map":{"a":"s1.safetensors","twice":"s2.safetensors","gone":"s1.safetensors",)"
      R"("x":"s3.safetensors","y":"../y.safetensors","z":1}})");
  const Error error = open_error(folder);
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_EQ(error.subject(), folder.path().string());
  const std::string text = error.what();
  EXPECT_TRUE(contains(text, "s3.safetensors is missing (1 tensors of the index are in it)"));
  EXPECT_TRUE(contains(
      text, "tensor \"stray\" is in s1.safetensors, but the index does not place it there"));
  EXPECT_TRUE(
      contains(text, "tensor \"gone\" is not in s1.safetensors, where the index places it"));
  EXPECT_TRUE(contains(text, "tensor \"twice\" is in both s1.safetensors and s2.safetensors"));
  EXPECT_TRUE(
      contains(text, "\"y\" points to \"../y.safetensors\", expected a file of this folder"));
  EXPECT_TRUE(contains(text, "weight_map of \"z\" is not a string"));
  EXPECT_TRUE(contains(error.hint_text(), "missing shards"));
}

TEST(HfFolder, ATruncatedShardIsAmongTheProblems) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  write_shard(folder, "model.safetensors", {"a"});
  std::filesystem::resize_file(folder / "model.safetensors",
                               std::filesystem::file_size(folder / "model.safetensors") - 1);
  EXPECT_TRUE(contains(open_error(folder).what(), "the file holds only 3"));
}

TEST(HfFolder, WhatIsNotAModelFolderSaysWhatItIs) {
  const TempFolder folder;
  EXPECT_TRUE(contains(open_error(folder).what(), "has no config.json"));
  folder.write("adapter_config.json", "{}");
  EXPECT_TRUE(contains(open_error(folder).hint_text(), "PEFT adapter"));
  folder.write("config.json", "{}");
  EXPECT_TRUE(contains(open_error(folder).what(), "has no weights"));
  folder.write("x.gguf", "GGUF");
  EXPECT_TRUE(contains(open_error(folder).hint_text(), "x.gguf"));
  folder.write("pytorch_model.bin", "x");
  const Error pickle = open_error(folder);
  EXPECT_EQ(pickle.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(contains(pickle.what(), "only as pytorch_model.bin, a pickle"));
  EXPECT_TRUE(contains(pickle.hint_text(), "save_pretrained"));
  EXPECT_TRUE(
      contains(error_of([&] { HfFolder::open(folder / "none"); }).what(), "does not exist"));
  EXPECT_TRUE(contains(error_of([&] { HfFolder::open(folder / "config.json"); }).what(),
                       "is not a folder"));
}

std::vector<TensorSource> sources(const std::vector<std::vector<std::uint8_t>>& bytes) {
  std::vector<TensorSource> tensors;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    TensorSource source;
    source.plan = {format("t{}", i), Dtype::kU8, {static_cast<std::int64_t>(bytes[i].size())}};
    source.memory = bytes_of(bytes[i]);
    tensors.push_back(std::move(source));
  }
  return tensors;
}

TEST(WriteHfWeights, OneFileBelowTheLimit) {
  const TempFolder folder;
  const std::vector<std::vector<std::uint8_t>> bytes{{1, 2}, {3}};
  EXPECT_EQ(write_hf_weights(folder.path(), sources(bytes)),
            std::vector<std::string>{"model.safetensors"});
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  EXPECT_EQ(SafetensorsFile::open(folder / "model.safetensors").metadata().at("format"), "pt");
}

TEST(WriteHfWeights, ShardsWithTheirIndexReopen) {
  const TempFolder folder;
  const std::vector<std::vector<std::uint8_t>> bytes{
      {1, 2}, {3, 4, 5}, {6}, {7, 7, 7, 7, 7, 7, 7, 7}, {8}};
  std::uint64_t last = 0;
  const auto files =
      write_hf_weight_files(folder.path(), sources(bytes), 5, [&](std::uint64_t done) {
        EXPECT_GE(done, last);
        last = done;
      });
  // 2 + 3 | 1 | 8 (larger than a shard) | 1
  ASSERT_EQ(files.size(), 5u);
  EXPECT_EQ(files[0].name, "model-00001-of-00004.safetensors");
  EXPECT_EQ(files[4].name, "model.safetensors.index.json");
  std::uint64_t total = 0;
  for (const WrittenFile& file : files) {
    const std::string text = read_file(folder / file.name);
    FastHash hash;
    hash.add(text);
    EXPECT_EQ(file.digest, hash.hex());
    EXPECT_EQ(file.bytes, text.size());
    total += file.bytes;
  }
  EXPECT_EQ(last, total - files[4].bytes);
  const Json index = read_json_file(folder / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 15);
  EXPECT_EQ(index["weight_map"]["t3"], "model-00003-of-00004.safetensors");
  folder.write("config.json", "{}");
  const HfFolder model = HfFolder::open(folder.path());
  EXPECT_EQ(model.tensors().size(), 5u);
  EXPECT_EQ(text_of(model.find("t1")->data), "\x03\x04\x05");
}

TEST(WriteHfWeights, CopiesFromFilesAndRenames) {
  const TempFolder source, folder;
  write_shard(source, "model.safetensors", {"model.layers.3.w"});
  const SafetensorsFile file = SafetensorsFile::open(source / "model.safetensors");
  TensorSource tensor;
  tensor.plan = {"model.layers.2.w", Dtype::kU8, {4}};
  tensor.stored = file.tensors()[0];
  write_hf_weights(folder.path(), {tensor});
  EXPECT_EQ(
      text_of(SafetensorsFile::open(folder / "model.safetensors").find("model.layers.2.w")->data),
      "\x01\x01\x01\x01");
}

/// Sets environment variables of the hub client for one scope.
class HubEnvironment {
 public:
  explicit HubEnvironment(std::map<std::string, std::string> values) {
    for (const char* name :
         {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* old = std::getenv(name);
      old_[name] = old == nullptr ? std::optional<std::string>() : std::string(old);
      const auto value = values.find(name);
      value == values.end() ? ::unsetenv(name) : ::setenv(name, value->second.c_str(), 1);
    }
  }
  ~HubEnvironment() {
    for (const auto& [name, value] : old_)
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
  }

 private:
  std::map<std::string, std::optional<std::string>> old_;
};

TEST(LocateModel, Paths) {
  const TempFolder folder;
  folder.write("m/config.json", "{}");
  folder.write("m/model.safetensors", "");
  folder.write("x.gguf", "");
  folder.write("empty/x.gguf", "");
  EXPECT_EQ(locate_model((folder / "m").string()).kind, ModelLocation::Kind::kHfFolder);
  EXPECT_EQ(locate_model((folder / "x.gguf").string()).kind, ModelLocation::Kind::kGguf);
  const Error no_config = error_of([&] { locate_model((folder / "empty").string()); });
  EXPECT_TRUE(contains(no_config.what(), "without config.json"));
  EXPECT_TRUE(contains(no_config.hint_text(), "empty/x.gguf"));
  const Error file = error_of([&] { locate_model((folder / "m/model.safetensors").string()); });
  EXPECT_TRUE(contains(file.hint_text(), (folder / "m").string()));
  EXPECT_EQ(error_of([] { locate_model(""); }).kind(), ErrorKind::kUsage);
}

TEST(LocateModel, TheLocalHubCache) {
  const TempFolder folder;
  const std::string repository = "hub/models--org--name";
  folder.write(repository + "/snapshots/aaa/config.json", "{}");
  folder.write(repository + "/snapshots/bbb/config.json", "{}");
  folder.write(repository + "/snapshots/ccc/other", "{}");
  folder.write(repository + "/refs/main", "aaa\n");
  const auto snapshot = [&](const char* name) { return folder / repository / "snapshots" / name; };
  const std::string home = folder.path().string();
  for (const std::map<std::string, std::string>& environment :
       {std::map<std::string, std::string>{{"HF_HUB_CACHE", format("{}/hub", home)},
                                           {"HF_HOME", "/nowhere"}},
        std::map<std::string, std::string>{{"HF_HOME", home}, {"HOME", "/nowhere"}}}) {
    const HubEnvironment scope(environment);
    EXPECT_EQ(locate_model("org/name").path, snapshot("aaa"));
  }
  const HubEnvironment scope({{"HF_HOME", home}});
  // Without refs/main, or when it names nothing usable, the newest snapshot with a config counts.
  folder.write(repository + "/refs/main", "ccc");
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::last_write_time(snapshot("aaa"), now - std::chrono::hours(1));
  std::filesystem::last_write_time(snapshot("bbb"), now);
  EXPECT_EQ(locate_model("org/name").path, snapshot("bbb"));
  // A revision that climbs out of the cache is not followed.
  folder.write(repository + "/refs/main", "../../../../etc");
  EXPECT_EQ(locate_model("org/name").path, snapshot("bbb"));

  const Error absent = error_of([] { locate_model("org/other"); });
  EXPECT_EQ(absent.kind(), ErrorKind::kInput);
  EXPECT_TRUE(contains(absent.what(), "not a path: org/other"));
  EXPECT_TRUE(contains(absent.what(), "hub/models--org--other"));
  EXPECT_TRUE(contains(absent.hint_text(), "never uses the network"));
}

TEST(LocateModel, WithoutAnyCacheItSaysSo) {
  const HubEnvironment scope({});
  EXPECT_TRUE(contains(error_of([] { locate_model("org/name"); }).what(), "no Hugging Face cache"));
  EXPECT_FALSE(contains(error_of([] { locate_model("../a/b/c"); }).what(), "Hugging Face"));
}

}  // namespace
}  // namespace espalier
