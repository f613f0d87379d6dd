// Public names and config.json: what is read back, and every mistake with its words.
#include "espalier/models/cnn/config.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

Error error_of(const std::string& json) {
  try {
    parse_cnn_config(json, "config.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.to_string();
    return error;
  }
  ADD_FAILURE() << json << " was accepted";
  return Error(ErrorKind::kInternal, "", "");
}

/// A config with one more line.
std::string with(const std::string& more, const std::string& arch = "resnet20") {
  return R"({"format": "espalier.cnn/1", "arch": ")" + arch + R"(", "num_classes": 10)" +
         (more.empty() ? "" : ", " + more) + "}";
}

TEST(CnnConfigTest, ReadsBackWhatItWrites) {
  CnnConfig config = cnn_config("resnet56", 3);
  config.stages = {{0, 1, 5}, {0}, {2, 8}};
  config.in_channels = 1;
  config.mean = {0.5};
  config.std = {0.25};
  config.image_size = 28;
  config.classes = {"a", "b", "zw\u00f6"};
  EXPECT_EQ(parse_cnn_config(cnn_config_json(config), "config.json"), config);
  EXPECT_EQ(stage_counts_text(config), "[3, 1, 2]");
  const CnnConfig cell = cnn_config("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", 10);
  EXPECT_EQ(parse_cnn_config(cnn_config_json(cell), "config.json"), cell);
}

TEST(CnnConfigTest, CountsAloneAreEnough) {
  const CnnConfig config = parse_cnn_config(with(R"("blocks": [2, 1, 3])"), "config.json");
  EXPECT_EQ(config.stages, (std::vector<std::vector<std::int64_t>>{{0, 1}, {0}, {0, 1, 2}}));
  EXPECT_EQ(parse_cnn_config(with(""), "config.json"), cnn_config("resnet20", 10));
}

TEST(CnnConfigTest, FoldersAreToldApart) {
  const TempFolder folder;
  folder.write("cnn/config.json", with(""));
  folder.write("llm/config.json", R"({"model_type": "llama"})");
  folder.write("bad/config.json", "{");
  EXPECT_TRUE(is_cnn_folder(folder / "cnn"));
  EXPECT_FALSE(is_cnn_folder(folder / "llm"));
  EXPECT_FALSE(is_cnn_folder(folder / "bad"));
  EXPECT_FALSE(is_cnn_folder(folder / "none"));
}

TEST(CnnConfigTest, MistakesAreNamed) {
  EXPECT_NE(error_of("{\n \"arch\" 3}").to_string().find("config.json:2:"), std::string::npos);
  EXPECT_EQ(error_of("[1]").message(), "is [1], expected an object");
  EXPECT_EQ(error_of(with(R"("imge_size": 3)")).message(),
            "`imge_size` is no key of a CNN; did you mean `image_size`?");
  EXPECT_NE(error_of(R"({"arch": "resnet20"})")
                .message()
                .find("`format` is missing, expected "
                      "\"espalier.cnn/1\""),
            std::string::npos);
  EXPECT_NE(error_of(R"({"arch": "resnet20"})").message().find("`num_classes` is missing"),
            std::string::npos);
  EXPECT_EQ(error_of(with("", "resnet55")).message().substr(0, 50),
            "`arch`: `resnet55` is not a network we know; did y");
  EXPECT_EQ(error_of(with(R"("family": "vgg")")).message(),
            "`family` is \"vgg\", but resnet20 is a cifar_resnet");
  EXPECT_EQ(error_of(with(R"("kept": [[0], [0]])")).message(),
            "resnet20 has 3 stages, but `kept` lists 2");
  EXPECT_EQ(error_of(with(R"("blocks": [1, 2, 3], "kept": [[0], [0], [0, 1, 2]])")).message(),
            "`blocks[1]` is 2, but `kept[1]` lists 1");
  EXPECT_EQ(error_of(with(R"("blocks": [4, 2, 3])")).message(),
            "stage 0 of resnet20 has 3 layers, but `blocks[0]` is 4");
  EXPECT_EQ(error_of(with(R"("kept": [[0], [3], [0]])")).message(),
            "stage 1 of resnet20 has layers 0-2, but layer 3 is kept");
  EXPECT_EQ(error_of(with(R"("kept": [[0], [1, 1], [0]])")).message(),
            "`kept[1]` is not ascending: 1 stands after 1");
  EXPECT_EQ(error_of(with(R"("kept": [[0], [], [0]])")).message(),
            "stage 1 of resnet20 is empty, but it changes the number of channels");
  EXPECT_EQ(error_of(with(R"("kept": [[0], [0.5], [0]])")).message(),
            "`kept[1][0]` is 0.5, expected a layer index");
  EXPECT_EQ(error_of(with(R"("in_channels": 0)")).message(),
            "`in_channels` is 0, expected an integer in 1-1000000");
  EXPECT_NE(error_of(with(R"("in_channels": 1)"))
                .message()
                .find("`mean` has 3 values, but the net has 1 input channels"),
            std::string::npos);
  EXPECT_EQ(error_of(with(R"("std": [1, 0, 1])")).message(),
            "`std[1]` is 0, expected a number above 0");
  EXPECT_EQ(error_of(with(R"("classes": ["a"])")).message(),
            "`classes` has 1 names, but num_classes is 10");
}

TEST(CnnConfigTest, UnknownNamesGetTheNearest) {
  const auto error = [](const std::string& arch, std::int64_t classes = 10) {
    try {
      cnn_config(arch, classes);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e;
    }
    ADD_FAILURE() << arch;
    return Error(ErrorKind::kInternal, "", "");
  };
  EXPECT_EQ(error("resnet5").message(), "`resnet5` is not a network we know");
  EXPECT_EQ(error("vgg16bn").hint_text(), "did you mean vgg16_bn?");
  EXPECT_NE(error("mobilenet").hint_text().find("known: resnet20, "), std::string::npos);
  EXPECT_EQ(error("resnet20", 0).message(), "0 classes were asked for, at least 1 is needed");
  for (const char* name : {"resnet", "resnet056", "resnet1208", "resnet21", "resnet-20", "resnet2"})
    EXPECT_NE(error(name).message(), "") << name;
  EXPECT_EQ(cnn_config("resnet50", 10).family, CnnFamily::kResnet);
  EXPECT_EQ(cnn_config("resnet44", 10).family, CnnFamily::kCifarResnet);
  for (const std::string& name : cnn_arch_names()) EXPECT_EQ(cnn_config(name, 7).arch, name);
}

}  // namespace
}  // namespace espalier
