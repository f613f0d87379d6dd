// make_tiny_images OUT: a small folder of class folders of PNG files, for tests that need labelled
// images: every class a flat colour of its own under noise. Pixels depend on the seed, the split,
// the class and the number of the image only.
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/image/encode.h"

namespace espalier {
namespace {

constexpr std::string_view kUsage =
    "make_tiny_images OUT [--classes 4] [--per-class 6] [--size 16] [--channels 3] [--split NAME] "
    "[--seed 0]\n";

struct TinyImages {
  std::string out, split;
  std::int64_t classes = 4, per_class = 6, size = 16, channels = 3, seed = 0;
};

Image make_image(const TinyImages& o, std::int64_t label, std::int64_t number) {
  RandomStream colour(static_cast<std::uint64_t>(o.seed), "colour", label);
  RandomStream noise(static_cast<std::uint64_t>(o.seed), "noise " + o.split, label, number);
  Image image{o.size, o.size, o.channels, {}, 0};
  std::vector<std::uint64_t> base;
  for (std::int64_t c = 0; c < o.channels; ++c) base.push_back(colour.below(200));
  for (std::int64_t i = 0; i < o.size * o.size * o.channels; ++i) {
    const auto c = static_cast<std::size_t>(i % o.channels);
    image.pixels.push_back(static_cast<std::uint8_t>(base[c] + noise.below(56)));
  }
  return image;
}

void write_images(const TinyImages& o) {
  for (std::int64_t label = 0; label < o.classes; ++label) {
    std::filesystem::path folder = std::filesystem::path(o.out) / o.split;
    folder /= format("class{:02}", label);
    std::filesystem::create_directories(folder);
    for (std::int64_t number = 0; number < o.per_class; ++number)
      write_file_atomically(folder / format("{:04}.png", number),
                            encode_png(make_image(o, label, number)));
  }
}

/// False for a flag or a number that cannot be read.
bool read_arguments(int argc, char** argv, TinyImages& o) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.starts_with("--")) {
      if (!o.out.empty()) return false;
      o.out = word;
      continue;
    }
    if (++i == argc) return false;
    const std::string_view value = argv[i];
    if (word == "--split") {
      o.split = value;
      continue;
    }
    std::int64_t* number = word == "--classes"     ? &o.classes
                           : word == "--per-class" ? &o.per_class
                           : word == "--size"      ? &o.size
                           : word == "--channels"  ? &o.channels
                           : word == "--seed"      ? &o.seed
                                                   : nullptr;
    if (number == nullptr) return false;
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), *number);
    if (code != std::errc{} || end != value.data() + value.size() || *number < 0) return false;
  }
  return !o.out.empty();
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  espalier::TinyImages options;
  if (!espalier::read_arguments(argc, argv, options)) {
    std::fputs(espalier::kUsage.data(), stderr);
    return 2;
  }
  try {
    espalier::write_images(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
