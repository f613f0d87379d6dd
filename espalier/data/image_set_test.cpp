// Folders, archives and CIFAR batches made here, as rows in a known order; every layout that is
// refused; the published CIFAR-10 images when they are there.
#include "espalier/data/image_set.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/image/encode.h"
#include "espalier/io/archive_testing_internal.h"

namespace espalier {
namespace {

using Names = std::vector<std::string>;

/// A flat PNG, so that one number tells which image a row is.
std::string png(std::uint8_t value, std::int64_t width = 2, std::int64_t height = 2,
                std::int64_t channels = 3) {
  const auto size = static_cast<std::size_t>(width * height * channels);
  return encode_png({width, height, channels, std::vector<std::uint8_t>(size, value), 0});
}

/// Keeps what is said.
class Listener : public Reporter {
 public:
  void log(LogLevel, std::string_view message) override { said.emplace_back(message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    phases.push_back(std::string(name) + " " + std::to_string(total) + " " + std::string(unit));
    return silent_reporter().phase(name, total, unit);
  }
  Names said, phases;
};

ImageSet load(const std::filesystem::path& path, const ImageSetOptions& options = {}) {
  return load_image_set(path, options, silent_reporter());
}

/// The error of a call, as "KIND message | hint"; the subject is `path`.
std::string refusal(const std::filesystem::path& path, const ImageSetOptions& options = {}) {
  try {
    load(path, options);
  } catch (const Error& error) {
    EXPECT_TRUE(error.subject() == path.string() || error.kind() == ErrorKind::kUsage)
        << error.subject();
    return std::to_string(error.exit_code()) + " " + error.message() +
           (error.hint_text().empty() ? "" : " | " + error.hint_text());
  }
  return "loaded";
}

std::vector<std::int64_t> values(const ImageSet& set) {
  const at::Tensor first = set.pixels.flatten(1).select(1, 0).to(at::kLong).contiguous();
  return {first.const_data_ptr<std::int64_t>(),
          first.const_data_ptr<std::int64_t>() + first.numel()};
}

std::vector<std::int64_t> labels(const ImageSet& set) {
  return {set.labels.const_data_ptr<std::int64_t>(),
          set.labels.const_data_ptr<std::int64_t>() + set.labels.numel()};
}

class ImageFolder : public ::testing::Test {
 protected:
  ImageFolder() {
    write("dog/b.png", png(11));
    write("dog/a.PNG", png(10));
    write("cat/2.png", png(1));
    write("cat/10.png", png(0));
    write("cat/3.png", png(2));
  }
  void write(const std::string& name, const std::string& bytes) {
    folder.write("d/" + name, bytes);
  }
  std::filesystem::path path() const { return folder / "d"; }
  TempFolder folder;
};

TEST_F(ImageFolder, RoundRobinOverSortedClassesEachByFileName) {
  const ImageSet set = load(path());
  EXPECT_EQ(set.classes, (Names{"cat", "dog"}));
  // "10.png" is before "2.png" bytewise.
  EXPECT_EQ(set.files, (Names{"cat/10.png", "dog/a.PNG", "cat/2.png", "dog/b.png", "cat/3.png"}));
  EXPECT_EQ(values(set), (std::vector<std::int64_t>{0, 10, 1, 11, 2}));
  EXPECT_EQ(labels(set), (std::vector<std::int64_t>{0, 1, 0, 1, 0}));
  EXPECT_EQ(set.pixels.sizes().vec(), (std::vector<std::int64_t>{5, 3, 2, 2}));
  EXPECT_EQ(set.pixels.scalar_type(), at::kByte);
  EXPECT_EQ(load(path(), {.limit = 3}).files, (Names{"cat/10.png", "dog/a.PNG", "cat/2.png"}));
  EXPECT_EQ(load(path(), {.limit = 99}).size(), 5);
}

TEST_F(ImageFolder, PixelsAreChannelsFirst) {
  write("cat/10.png", encode_png({2, 2, 3, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 0}));
  const at::Tensor expected =
      at::tensor({1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12}, at::kByte).view({3, 2, 2});
  EXPECT_TRUE(at::equal(load(path()).pixels[0], expected));
}

TEST_F(ImageFolder, HiddenFilesArePassedOverAndOthersReported) {
  write("cat/.x.png", "no image");
  write(".git/y.png", "no image");
  write("cat/notes.txt", "text");
  Listener listener;
  const ImageSet set = load_image_set(path(), {}, listener);
  EXPECT_EQ(set.size(), 5);
  EXPECT_EQ(listener.said, Names{"ignored 1 file that is no image by name, first: cat/notes.txt"});
  EXPECT_EQ(listener.phases, Names{"decoding images 5 images"});
}

TEST_F(ImageFolder, ABrokenImageIsNamedOrCounted) {
  write("cat/2.png", png(1).substr(0, 50));
  EXPECT_EQ(refusal(path()),
            "3 cat/2.png: the PNG data end early | --skip-broken leaves out and counts images that "
            "do not decode");
  write("dog/a.PNG", "");
  EXPECT_EQ(
      refusal(path()),
      "3 2 problems:\n  - dog/a.PNG: is empty, expected an image\n  - cat/2.png: the PNG data "
      "end early | --skip-broken leaves out and counts images that do not decode");
  Listener listener;
  const ImageSet set = load_image_set(path(), {.broken = BrokenRule::kSkip}, listener);
  EXPECT_EQ(set.broken, (Names{"dog/a.PNG", "cat/2.png"}));
  EXPECT_EQ(set.files, (Names{"cat/10.png", "dog/b.png", "cat/3.png"}));
  EXPECT_EQ(values(set), (std::vector<std::int64_t>{0, 11, 2}));
  EXPECT_EQ(labels(set), (std::vector<std::int64_t>{0, 1, 0}));
  EXPECT_EQ(
      listener.said,
      Names{path().string() + ": 2 of 5 images do not decode and are left out, first: dog/a.PNG"});
}

TEST_F(ImageFolder, AClassOfBrokenImagesIsRefused) {
  write("dog/a.PNG", "x");
  write("dog/b.png", "x");
  EXPECT_EQ(refusal(path(), {.broken = BrokenRule::kSkip}),
            "3 no image of class dog can be decoded (2 broken)");
  for (const char* name : {"cat/2.png", "cat/3.png", "cat/10.png"}) write(name, "x");
  EXPECT_EQ(refusal(path(), {.broken = BrokenRule::kSkip}).rfind("3 5 problems:", 0), 0u);
}

TEST_F(ImageFolder, MixedSizesNameBothFiles) {
  write("cat/2.png", png(1, 3, 4));
  EXPECT_EQ(refusal(path()),
            "3 mixed image sizes: cat/10.png is 2 x 2, cat/2.png is 3 x 4 (width x height) | "
            "--resize 2 brings them to one size");
  const ImageSet set = load(path(), {.resize = 2});
  EXPECT_EQ(set.pixels.sizes().vec(), (std::vector<std::int64_t>{5, 3, 2, 2}));
  EXPECT_EQ(values(set), (std::vector<std::int64_t>{0, 10, 1, 11, 2}));
}

TEST_F(ImageFolder, ResizeKeepsTheShapeAndCutsTheMiddle) {
  // 8 wide, 4 high, columns 0 10 20 ... 70: at half size the columns are 5 25 45 65 (antialiased
  // averages away from the border differ from plain pairs), the middle two of them are kept.
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 8; ++x) pixels.push_back(static_cast<std::uint8_t>(10 * x));
  }
  for (const char* name : {"cat/2.png", "cat/3.png", "cat/10.png", "dog/a.PNG", "dog/b.png"})
    write(name, encode_png({8, 4, 1, pixels, 0}));
  const ImageSet set = load(path(), {.channels = 1, .resize = 2});
  EXPECT_EQ(set.pixels.sizes().vec(), (std::vector<std::int64_t>{5, 1, 2, 2}));
  EXPECT_TRUE(at::equal(set.pixels[0][0], at::tensor({25, 45, 25, 45}, at::kByte).view({2, 2})));
  const ImageSet smaller = load(path(), {.channels = 1, .resize = 4, .crop = 2});
  EXPECT_TRUE(
      at::equal(smaller.pixels[0][0], at::tensor({30, 40, 30, 40}, at::kByte).view({2, 2})));
}

TEST_F(ImageFolder, ChannelCountsAreRefusedOrConverted) {
  write("dog/a.PNG", png(77, 2, 2, 1));
  EXPECT_EQ(refusal(path()),
            "3 wrong channel count: dog/a.PNG has 1 channel (grey), expected 3 channels (RGB) | "
            "--grey convert turns grey into RGB, or RGB into grey");
  EXPECT_EQ(refusal(path(), {.channels = 1}),
            "3 wrong channel count: cat/10.png has 3 channels (RGB), expected 1 channel (grey) | "
            "--grey convert turns grey into RGB, or RGB into grey");
  const ImageSet rgb = load(path(), {.grey = GreyRule::kConvert});
  EXPECT_EQ(rgb.channels(), 3);
  EXPECT_EQ(values(rgb)[1], 77);
  const ImageSet grey = load(path(), {.channels = 1, .grey = GreyRule::kConvert});
  EXPECT_EQ(grey.channels(), 1);
  EXPECT_EQ(values(grey), (std::vector<std::int64_t>{0, 77, 1, 11, 2}));
}

TEST_F(ImageFolder, LayoutsThatAreRefused) {
  EXPECT_EQ(refusal(path(), {.split = "train"}),
            "3 has no split `train`: its class folders lie at the top | leave out --split");
  std::filesystem::create_directories(path() / "mouse");
  std::filesystem::create_directories(path() / "cow");
  EXPECT_EQ(refusal(path()),
            "3 class folders without an image: cow, mouse | remove these folders, or put images "
            "(.jpg .jpeg .png .webp) into them");
  write("top.png", png(1));
  EXPECT_EQ(refusal(path()),
            "3 the image top.png lies beside the class folders, so its class is unknown | one "
            "folder per class, with its images inside");
  EXPECT_EQ(refusal(folder / "none"), "3 no such file or folder");
  std::filesystem::create_directories(folder / "empty");
  EXPECT_EQ(refusal(folder / "empty"),
            "3 holds no image (.jpg .jpeg .png .webp) | give a folder or a tar archive of class "
            "folders, or CIFAR's binary batches");
  folder.write("one/cat/1.png", png(1));
  EXPECT_EQ(refusal(folder / "one"), "3 holds a single class, cat; at least two are needed");
}

TEST_F(ImageFolder, OptionsOutOfRange) {
  EXPECT_EQ(refusal(path(), {.limit = -1, .channels = 2, .resize = -3, .crop = 5}),
            "2 4 problems:\n  - channels is 2, expected 1 or 3\n  - limit is -1, expected at least "
            "0\n  - resize is -3, expected 0-16384\n  - crop is 5, expected 0-0 (resize)");
}

TEST_F(ImageFolder, MemoryIsLimited) {
  EXPECT_EQ(refusal(path(), {.max_memory = 59}),
            "5 5 images of 3 x 2 x 2 need 60 B, more than the limit of 59 B | take fewer images "
            "with --limit");
  EXPECT_EQ(load(path(), {.max_memory = 60}).size(), 5);
}

TEST_F(ImageFolder, TheNumberOfThreadsChangesNothing) {
  for (int i = 0; i < 60; ++i)
    write("cat/more" + std::to_string(i) + ".png", png(static_cast<std::uint8_t>(100 + i)));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const ImageSet one = load(path());
  at::set_num_threads(3);
  const ImageSet three = load(path());
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.pixels, three.pixels));
  EXPECT_EQ(one.files, three.files);
}

TEST(ImageSplits, AreChosenByName) {
  const TempFolder folder;
  folder.write("d/train/cat/1.png", png(1));
  folder.write("d/train/dog/1.png", png(2));
  const auto path = folder / "d";
  EXPECT_EQ(load(path).split, "train");  // the only one
  folder.write("d/test/cat/1.png", png(3));
  folder.write("d/test/dog/1.png", png(4));
  EXPECT_EQ(values(load(path, {.split = "test"})), (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(load(path, {.split = "test"}).files, (Names{"test/cat/1.png", "test/dog/1.png"}));
  EXPECT_EQ(refusal(path),
            "3 holds several splits: test, train | choose one, for example --split "
            "train");
  EXPECT_EQ(load(path, {.preferred_split = "test"}).split, "test");
  EXPECT_EQ(load(path, {.split = "train", .preferred_split = "test"}).split, "train");
  EXPECT_EQ(refusal(path, {.preferred_split = "val"}).rfind("3 holds several splits", 0), 0u);
  EXPECT_EQ(load(path, {.preferred_split = "test"}).splits, (Names{"test", "train"}));
  EXPECT_EQ(refusal(path, {.split = "val"}),
            "3 has no split `val`; it has: test, train | for example --split train");
}

TEST(ImageArchive, IsReadAsTheFolderItHolds) {
  const TempFolder folder;
  const std::vector<testing::TarEntry> entries{
      {"./test/dog/1.png", png(4)},  {"./test/cat/1.png", png(3)}, {"./train/", ""},
      {"./train/dog/2.png", png(9)}, {"./train/dog/", ""},         {"./train/dog/1.png", png(2)},
      {"./train/cat/1.png", png(7)}, {"./train/cat/.1.png", "x"},  {"./README", "text"},
      {"./train/cat/1.png", png(1)},  // written again: the last one counts
  };
  for (const int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ}) {
    testing::write_tar(folder / "a.tar.xz", entries, filter);
    const ImageSet set = load(folder / "a.tar.xz", {.split = "train"});
    EXPECT_EQ(set.files, (Names{"train/cat/1.png", "train/dog/1.png", "train/dog/2.png"}));
    EXPECT_EQ(values(set), (std::vector<std::int64_t>{1, 2, 9}));
    EXPECT_EQ(set.split, "train");
    EXPECT_EQ(values(load(folder / "a.tar.xz", {.split = "test"})),
              (std::vector<std::int64_t>{3, 4}));
  }
  EXPECT_EQ(refusal(folder / "a.tar.xz").rfind("3 holds several splits: test, train", 0), 0u);
  EXPECT_EQ(load(folder / "a.tar.xz", {.preferred_split = "test"}).files,
            load(folder / "a.tar.xz", {.split = "test"}).files);
  EXPECT_EQ(load(folder / "a.tar.xz", {.preferred_split = "train"}).files,
            load(folder / "a.tar.xz", {.split = "train"}).files);
  EXPECT_EQ(refusal(folder / "a.tar.xz", {.split = "train", .max_memory = 100}),
            "5 holds more than 100 B of images, the limit | unpack it: images of a folder are not "
            "kept in memory before they are decoded");
  testing::write_tar(folder / "b.tar", {{"cat/1.png", png(1)}, {"dog/", ""}, {"cow/", ""}});
  EXPECT_EQ(refusal(folder / "b.tar").rfind("3 class folders without an image: cow, dog", 0), 0u);
  testing::write_tar(folder / "c.tar", {{"cat/1.png", png(1)}, {"dog/1.png", "broken"}});
  EXPECT_EQ(refusal(folder / "c.tar").rfind("3 dog/1.png: is not a JPEG", 0), 0u);
  folder.write("text.txt", "no archive at all");
  EXPECT_EQ(refusal(folder / "text.txt"),
            "3 cannot be read as a tar archive: Unrecognized archive format");
}

/// A record: label bytes, then red, green and blue planes of one value each.
std::string record(const std::string& label, int value) {
  return label + std::string(1024, static_cast<char>(value)) +
         std::string(1024, static_cast<char>(value + 1)) +
         std::string(1024, static_cast<char>(value + 2));
}

std::string byte(int value) { return std::string(1, static_cast<char>(value)); }

TEST(Cifar, BatchesOfCifar10InAFolderAndAnArchive) {
  const TempFolder folder;
  const std::string names = "frog\ncat\n\n", first = record(byte(0), 10) + record(byte(1), 20),
                    second = record(byte(0), 30), test = record(byte(1), 50) + record(byte(0), 60);
  const std::string inside = "cifar-10-batches-bin/";
  folder.write("d/" + inside + "batches.meta.txt", names);
  folder.write("d/" + inside + "data_batch_2.bin", second);
  folder.write("d/" + inside + "data_batch_1.bin", first);
  folder.write("d/" + inside + "test_batch.bin", test);
  folder.write("d/" + inside + "readme.html", "text");
  testing::write_tar(folder / "cifar-10-binary.tar.gz",
                     {{inside, ""},
                      {inside + "data_batch_1.bin", first},
                      {inside + "batches.meta.txt", names},
                      {inside + "data_batch_2.bin", second},
                      {inside + "test_batch.bin", test}},
                     ARCHIVE_FILTER_GZIP);
  for (const char* name : {"d", "d/cifar-10-batches-bin", "cifar-10-binary.tar.gz"}) {
    const auto path = folder / name;
    const ImageSet train = load(path, {.split = "train"});
    EXPECT_EQ(train.classes, (Names{"cat", "frog"}));  // sorted: the file's label 0 becomes 1
    EXPECT_EQ(values(train), (std::vector<std::int64_t>{20, 10, 30}));
    EXPECT_EQ(labels(train), (std::vector<std::int64_t>{0, 1, 1}));
    EXPECT_EQ(train.files[2].substr(train.files[2].find("data_")), "data_batch_2.bin/00000");
    EXPECT_EQ(train.pixels.sizes().vec(), (std::vector<std::int64_t>{3, 3, 32, 32}));
    EXPECT_EQ(train.pixels[0][2][31][31].item<int>(), 22);
    EXPECT_EQ(values(load(path, {.split = "test"})), (std::vector<std::int64_t>{50, 60}));
    EXPECT_EQ(load(path, {.preferred_split = "test"}).split, "test");
    EXPECT_EQ(train.splits, (Names{"test", "train"}));
    EXPECT_EQ(refusal(path),
              "3 holds several splits: test, train | choose one, for example "
              "--split train");
  }
}

TEST(Cifar, Cifar100HasFineLabels) {
  const TempFolder folder;
  folder.write("fine_label_names.txt", "apple\nbear\n");
  folder.write("train.bin", record(byte(9) + byte(1), 40) + record(byte(9) + byte(0), 45));
  const ImageSet set = load(folder.path());
  EXPECT_EQ(set.split, "train");
  EXPECT_EQ(values(set), (std::vector<std::int64_t>{45, 40}));
  EXPECT_EQ(set.files, (Names{"train.bin/00001", "train.bin/00000"}));
}

TEST(Cifar, DamagedBatchesAreNamed) {
  const TempFolder folder;
  folder.write("test_batch.bin", record(byte(0), 1) + record(byte(2), 2));
  EXPECT_EQ(refusal(folder.path()),
            "3 has CIFAR's batches, but not their class names (batches.meta.txt)");
  folder.write("batches.meta.txt", "a\nb\n");
  EXPECT_EQ(refusal(folder.path()),
            "3 record 1 of test_batch.bin has label 2, but there are 2 class names");
  folder.write("test_batch.bin", record(byte(0), 1) + "x");
  EXPECT_EQ(refusal(folder.path()),
            "3 test_batch.bin has 3074 bytes, not a multiple of 3073 (label and 3 x 32 x 32)");
  folder.write("batches.meta.txt", "\n");
  EXPECT_EQ(refusal(folder.path()), "3 batches.meta.txt names 0 classes, expected 1-256");
  folder.write("more/test_batch.bin", record(byte(0), 1));
  EXPECT_EQ(refusal(folder.path()),
            "3 holds more than one CIFAR data set | give the folder of one of them");
}

TEST(ImageArchive, PublishedCifar10) {
  const char* data = std::getenv("ESPALIER_DATA");
  if (!data) GTEST_SKIP() << "set ESPALIER_DATA to the folder with images/cifar10_jpg.tar.xz";
  const auto path = std::filesystem::path(data) / "images" / "cifar10_jpg.tar.xz";
  const Names classes{"airplane", "automobile", "bird",  "cat",  "deer",
                      "dog",      "frog",       "horse", "ship", "truck"};
  const ImageSet train = load(path, {.split = "train"});
  EXPECT_EQ(train.size(), 50'000);
  EXPECT_EQ(train.classes, classes);
  EXPECT_EQ(train.files[0], "train/airplane/0000.jpg");
  EXPECT_EQ(train.files[11], "train/automobile/0001.jpg");
  EXPECT_EQ(train.pixels.sizes().vec(), (std::vector<std::int64_t>{50'000, 3, 32, 32}));
  EXPECT_TRUE(at::equal(at::bincount(train.labels), at::full({10}, 5000, at::kLong)));
  const ImageSet test = load(path, {.split = "test", .limit = 100});
  EXPECT_EQ(test.size(), 100);
  EXPECT_EQ(test.classes, classes);
  EXPECT_EQ(load(path, {.split = "test"}).size(), 10'000);
}

}  // namespace
}  // namespace espalier
