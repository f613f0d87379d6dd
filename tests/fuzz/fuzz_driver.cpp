// main() for a fuzz target that defines LLVMFuzzerTestOneInput: GCC 12 has no libFuzzer, and a
// mutation loop without coverage feedback finds the mistakes of parsers (lengths, offsets,
// recursion) well enough when it starts from valid files. Built with clang's -fsanitize=fuzzer the
// same targets do without this file.
//
//   TARGET [--seconds=60] [--seed=1] [--runs=N] [FILE|FOLDER]...     FILE alone with --runs=0
//   replays a crash ("--seconds 60" works too)
//
// Small seeds are first cut at every byte, and every bit and integer of their beginning is changed
// in turn. A crash, an abort or memory (one allocation or their sum) far beyond the input's size
// stops the run with a non-zero exit code; the input is written to crash-<target>-<run>.bin first.
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <malloc.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
/// Optional: valid inputs to start from, made by the target itself.
extern "C" __attribute__((weak)) void espalier_fuzz_seeds(
    std::vector<std::vector<std::uint8_t>>& seeds);

namespace {

using Input = std::vector<std::uint8_t>;

// What the signal handler and the allocation guard need to know about the run in progress.
const Input* current_input = nullptr;
char crash_path[256] = "crash.bin";
std::size_t allocation_limit = SIZE_MAX;
std::size_t live_bytes = 0;
std::size_t live_limit = SIZE_MAX;

void save_current_input() {
  if (current_input == nullptr) return;
  const int file = ::open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0) return;
  const auto written = ::write(file, current_input->data(), current_input->size());
  (void)written;
  ::close(file);
  std::fprintf(stderr, "input saved as %s (%zu bytes)\n", crash_path, current_input->size());
}

void on_crash(int signal) {
  save_current_input();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void* guarded(std::size_t size) {
  if (size > allocation_limit || (live_limit != SIZE_MAX && live_bytes + size > live_limit)) {
    const std::size_t limit = std::exchange(allocation_limit, SIZE_MAX);
    live_limit = SIZE_MAX;
    std::fprintf(stderr, "allocation of %zu bytes for an input of %zu (limit %zu, %zu in use)\n",
                 size, current_input == nullptr ? 0 : current_input->size(), limit, live_bytes);
    std::abort();
  }
  void* pointer = std::malloc(size == 0 ? 1 : size);
  if (pointer == nullptr) throw std::bad_alloc();
  live_bytes += ::malloc_usable_size(pointer);
  return pointer;
}

void released(void* pointer) {
  live_bytes -= std::min(live_bytes, ::malloc_usable_size(pointer));
  std::free(pointer);
}

std::uint64_t interesting(std::mt19937_64& random) {
  static constexpr std::array<std::uint64_t, 16> kValues{
      0,          1,      0x7f,       0x80,       0xff,       0x7fff,
      0x8000,     0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
      1ull << 63, ~0ull,  1ull << 40, 1ull << 32};
  return kValues[random() % kValues.size()] + random() % 3 - 1;
}

std::size_t below(std::mt19937_64& random, std::size_t limit) {
  return limit == 0 ? 0 : random() % limit;
}

/// One small change of `input`: bits, bytes, lengths, cuts, repeats, a piece of another seed.
void mutate_once(Input& input, const Input& other, std::mt19937_64& random) {
  if (input.empty()) input.push_back(static_cast<std::uint8_t>(random()));
  // Headers decide everything in these formats: half of the changes hit the first 256 bytes.
  const std::size_t range =
      random() % 2 == 0 ? std::min<std::size_t>(input.size(), 256) : input.size();
  const std::size_t at = below(random, range);
  switch (random() % 8) {
    case 0:
      input[at] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      break;
    case 1:
      input[at] = static_cast<std::uint8_t>(random());
      break;
    case 2:
    case 3: {  // an integer of 1, 2, 4 or 8 bytes becomes an extreme one
      const std::uint64_t value = interesting(random);
      const std::size_t width =
          std::min<std::size_t>(std::size_t{1} << (random() % 4), input.size() - at);
      std::memcpy(input.data() + at, &value, width);
      break;
    }
    case 4:
      input.resize(below(random, input.size() + 1));
      break;
    case 5: {
      const std::size_t length = std::min<std::size_t>(1 + below(random, 32), input.size() - at);
      const Input piece(input.begin() + static_cast<std::ptrdiff_t>(at),
                        input.begin() + static_cast<std::ptrdiff_t>(at + length));
      input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
      break;
    }
    case 6: {
      const std::size_t length = std::min<std::size_t>(1 + below(random, 32), input.size() - at);
      input.erase(input.begin() + static_cast<std::ptrdiff_t>(at),
                  input.begin() + static_cast<std::ptrdiff_t>(at + length));
      break;
    }
    default: {
      if (other.empty()) break;
      const std::size_t from = below(random, other.size());
      const std::size_t length =
          std::min({1 + below(random, 64), other.size() - from, input.size() - at});
      std::copy_n(other.begin() + static_cast<std::ptrdiff_t>(from), length,
                  input.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    }
  }
}

void run_one(const Input& input) {
  current_input = &input;
  // 64 MiB cover the tables of any parser; beyond that an allocation must be explained by the
  // input's size.
  allocation_limit = (std::size_t{64} << 20) + 64 * input.size();
  live_limit = live_bytes + allocation_limit;
  LLVMFuzzerTestOneInput(input.data(), input.size());
  allocation_limit = live_limit = SIZE_MAX;
  current_input = nullptr;
}

/// Every cut of a small seed, every flipped bit and every extreme integer in its first bytes.
template <class Execute>
void sweep(const Input& seed, Execute execute) {
  constexpr std::size_t kMaxSize = 4096, kHeader = 512;
  if (seed.size() > kMaxSize) return;
  Input input;
  for (std::size_t size = 0; size < seed.size(); ++size) {
    input.assign(seed.begin(), seed.begin() + static_cast<std::ptrdiff_t>(size));
    execute(input);
  }
  input = seed;
  for (std::size_t at = 0; at < std::min(seed.size(), kHeader); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      input[at] = static_cast<std::uint8_t>(seed[at] ^ (1u << bit));
      execute(input);
    }
    input[at] = seed[at];
    const std::size_t width = std::min<std::size_t>(8, seed.size() - at);
    for (const std::uint64_t value :
         {~0ull, 1ull << 63, 0x7fffffffffffffffull, 1ull << 40, 0xffffffffull, 0ull}) {
      std::memcpy(input.data() + at, &value, width);
      execute(input);
    }
    std::copy_n(seed.begin() + static_cast<std::ptrdiff_t>(at), width,
                input.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

void read_seeds(const std::filesystem::path& path, std::vector<Input>& seeds) {
  if (std::filesystem::is_directory(path)) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) read_seeds(file, seeds);
    return;
  }
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    std::fprintf(stderr, "error: %s: cannot be read\n", path.c_str());
    std::exit(3);
  }
  seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

struct Settings {
  double seconds = 60;
  std::uint64_t seed = 1;
  std::uint64_t runs = UINT64_MAX;
  std::vector<Input> seeds;
};

Settings read_settings(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument.rfind("--", 0) == 0 && argument.find('=') == std::string::npos && i + 1 < argc)
      argument += "=" + std::string(argv[++i]);
    const auto value = argument.substr(argument.find('=') + 1);
    if (argument.rfind("--seconds=", 0) == 0) {
      settings.seconds = std::stod(value);
    } else if (argument.rfind("--seed=", 0) == 0) {
      settings.seed = std::stoull(value);
    } else if (argument.rfind("--runs=", 0) == 0) {
      settings.runs = std::stoull(value);
    } else {
      read_seeds(argument, settings.seeds);
    }
  }
  return settings;
}

}  // namespace

void* operator new(std::size_t size) { return guarded(size); }
// std::stable_sort asks for its buffer this way and frees it with plain delete.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return guarded(size); }
void operator delete(void* pointer, const std::nothrow_t&) noexcept { released(pointer); }
void* operator new[](std::size_t size) { return guarded(size); }
void operator delete(void* pointer) noexcept { released(pointer); }
void operator delete[](void* pointer) noexcept { released(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { released(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { released(pointer); }

int main(int argc, char** argv) {
  Settings settings = read_settings(argc, argv);
  if (espalier_fuzz_seeds != nullptr) espalier_fuzz_seeds(settings.seeds);
  if (settings.seeds.empty()) settings.seeds.push_back({});
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE, SIGILL, SIGBUS}) std::signal(signal, on_crash);
  const std::string name = std::filesystem::path(argv[0]).filename();

  std::uint64_t run = 0;
  const auto execute = [&](const Input& input) {
    std::snprintf(crash_path, sizeof crash_path, "crash-%s-%llu.bin", name.c_str(),
                  static_cast<unsigned long long>(run));
    run_one(input);
    ++run;
  };
  for (const Input& seed : settings.seeds) execute(seed);
  if (settings.runs > 0) {
    for (const Input& seed : settings.seeds) sweep(seed, execute);
  }

  std::mt19937_64 random(settings.seed);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::uint64_t mutated = 0;
  Input input;
  while (mutated < settings.runs && elapsed() < settings.seconds) {
    input = settings.seeds[below(random, settings.seeds.size())];
    const Input& other = settings.seeds[below(random, settings.seeds.size())];
    for (std::uint64_t changes = 1 + random() % 4; changes > 0; --changes)
      mutate_once(input, other, random);
    execute(input);
    ++mutated;
  }
  std::printf("%s: %llu inputs from %zu seeds in %.1f s, no crash\n", name.c_str(),
              static_cast<unsigned long long>(run), settings.seeds.size(), elapsed());
  return 0;
}
