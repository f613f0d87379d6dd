// `espalier doctor`: what this machine offers, what is missing, and what to type about it.
#include <cstdlib>
#include <filesystem>

#include <dlfcn.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/io/parquet.h"
#include "espalier/run/build_info.h"
#include "espalier/tensor/tensor_view.h"

#include "apps/cli/commands.h"
#include "apps/cli/machine.h"

namespace espalier::cli {

namespace {

enum class Finding : std::uint8_t {
  kOk,
  kOptional,  // not there, and espalier works without it
  kMissing,   // not there, and something that was asked for cannot work
};

struct Check {
  std::string name;
  Finding finding = Finding::kOk;
  std::string detail;
  std::string fix;  // what to type; empty when all is well
};

const char* finding_name(Finding finding) {
  switch (finding) {
    case Finding::kOk:
      return "ok";
    case Finding::kOptional:
      return "optional";
    case Finding::kMissing:
      return "missing";
  }
  return "";
}

struct DoctorOptions {
  template <class V>
  void visit(V&&) {}
};

// Where the loader found the library that at::set_num_threads lives in.
std::string libtorch_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&at::set_num_threads), &info) == 0 ||
      info.dli_fname == nullptr)
    return "unknown place";
  std::error_code ignored;
  const std::filesystem::path path = std::filesystem::weakly_canonical(info.dli_fname, ignored);
  return ignored ? info.dli_fname : path.string();
}

Check check_espalier() {
  const BuildInfo& info = build_info();
  return {"espalier",
          Finding::kOk,
          format("{}{}, built with {}", info.version,
                 info.commit.empty() ? "" : " (" + info.commit.substr(0, 12) + ")", info.compiler),
          {}};
}

// A product that is known, so a library for another processor or a half-unpacked one is noticed
// here.
Check check_libtorch() {
  Check check{"libtorch",
              Finding::kOk,
              format("{} from {}", build_info().libtorch_version, libtorch_path()),
              {}};
  try {
    const at::Tensor product = at::full({8, 8}, 2.0).matmul(at::full({8, 8}, 0.5));
    if (product.eq(8).all().item<bool>()) return check;
    check.detail += ", but a matrix product came out wrong";
  } catch (const std::exception& error) {
    check.detail += format(", but it cannot compute: {}", std::string(error.what()).substr(0, 200));
  }
  check.finding = Finding::kMissing;
  check.fix = "unpack libtorch again: rm -r .deps/libtorch && make setup";
  return check;
}

Check check_processor() {
  const ProcessorFacts facts = processor_facts();
  std::string sets;
  for (const auto& [flag, name] : {std::pair{"avx2", "AVX2"},
                                   {"fma", "FMA"},
                                   {"f16c", "F16C"},
                                   {"avx512f", "AVX-512"},
                                   {"avx512_bf16", "AVX-512 bf16"},
                                   {"amx_bf16", "AMX bf16"},
                                   {"asimd", "NEON"},
                                   {"bf16", "bf16"}})
    if (facts.has(flag)) sets += (sets.empty() ? "" : ", ") + std::string(name);
  Check check{"processor",
              Finding::kOk,
              format("{}: {}", facts.model.empty() ? "unknown model" : facts.model,
                     sets.empty() ? "no vector extensions known to us" : sets),
              {}};
  if (facts.has("avx2") || facts.has("asimd")) return check;
  check.finding = Finding::kOptional;
  check.fix = "a processor with AVX2 is several times faster";
  return check;
}

Check check_bf16() {
  const ProcessorFacts facts = processor_facts();
  if (facts.has("avx512_bf16") || facts.has("amx_bf16") || facts.has("bf16"))
    return {"bfloat16", Finding::kOk, "computed by the processor itself", {}};
  return {"bfloat16", Finding::kOptional,
          "emulated: halves memory, but is slower than float32 here",
          "use --dtype float32 when speed matters"};
}

Check check_threads() {
  return {"threads",
          Finding::kOk,
          format("{} cores may be used, {} threads are", usable_cores(), at::get_num_threads()),
          {}};
}

// Threads that wait by spinning are many times slower when other programs hold the cores.
Check check_load() {
  double load = 0;
  if (getloadavg(&load, 1) != 1) return {"load", Finding::kOk, "unknown", {}};
  Check check{"load",
              Finding::kOk,
              format("{:.1f} busy threads on this machine in the last minute", load),
              {}};
  if (load < 0.75 * static_cast<double>(usable_cores()) ||
      std::getenv("OMP_WAIT_POLICY") != nullptr)
    return check;
  check.finding = Finding::kOptional;
  check.fix =
      "other programs use the cores: export OMP_WAIT_POLICY=passive, or give --threads a smaller "
      "number";
  return check;
}

Check check_memory() {
  constexpr std::int64_t kLittle = std::int64_t{2} << 30;
  const MemoryFacts facts = memory_facts();
  Check check{"memory",
              Finding::kOk,
              format("{} available of {}", to_string(facts.available), to_string(facts.total)),
              {}};
  if (facts.available.count >= kLittle || facts.total.count == 0) return check;
  check.finding = Finding::kOptional;
  check.fix =
      "close other programs; `espalier prune` and streamed scoring work with little memory, "
      "finetune does not";
  return check;
}

Check check_disk() {
  constexpr std::int64_t kLittle = std::int64_t{2} << 30;
  const Bytes free = free_disk(".");
  Check check{"disk",
              Finding::kOk,
              format("{} free in {}", to_string(free), std::filesystem::current_path().string()),
              {}};
  if (free.count >= kLittle) return check;
  check.finding = Finding::kOptional;
  check.fix = "free some space, or give --out on another disk";
  return check;
}

Check check_cuda(bool wanted) {
  const Finding absent = wanted ? Finding::kMissing : Finding::kOptional;
  if (!at::globalContext().hasCUDA())
    return {"CUDA", absent, "this build has no CUDA kernels",
            "build with make CUDA=1 to use an NVIDIA GPU"};
  if (!has_cuda())
    return {"CUDA", absent, "built in, but no device is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES"};
  return {"CUDA",
          Finding::kOk,
          format("{} device(s) visible",
                 at::globalContext().getAcceleratorHooksInterface().deviceCount()),
          {}};
}

Check check_cache() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  std::filesystem::path place = variable("HF_HUB_CACHE");
  if (place.empty() && !variable("HF_HOME").empty())
    place = std::filesystem::path(variable("HF_HOME")) / "hub";
  if (place.empty()) place = std::filesystem::path(variable("HOME")) / ".cache/huggingface/hub";
  std::error_code ignored;
  std::int64_t models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(place, ignored))
    if (entry.path().filename().string().starts_with("models--")) ++models;
  if (models > 0)
    return {"model cache", Finding::kOk, format("{} models in {}", models, place.string()), {}};
  return {"model cache", Finding::kOptional, format("no models in {}", place.string()),
          "give models as folders or .gguf files, or set HF_HUB_CACHE"};
}

Check check_arrow() {
  if (!arrow_version().empty())
    return {"Parquet", Finding::kOk, format("read through Arrow {}", arrow_version()), {}};
  return {"Parquet", Finding::kOptional, "not in this build; .parquet data cannot be read",
          "build with make ARROW=1, or convert the data to JSON Lines"};
}

Check check_program(const std::string& program, const std::string& use,
                    const std::string& package) {
  const std::filesystem::path path = find_program(program);
  if (!path.empty()) return {program, Finding::kOk, path.string(), {}};
  return {program, Finding::kOptional, "not found; " + use, "apt-get install " + package};
}

std::vector<Check> run_checks(const CommonOptions& common) {
  std::vector<Check> checks{
      check_espalier(), check_libtorch(), check_processor(),
      check_bf16(),     check_threads(),  check_load(),
      check_memory(),   check_disk(),     check_cuda(common.device.starts_with("cuda")),
      check_cache()};
  checks.push_back(check_arrow());
  checks.push_back(check_program("man", "shows `espalier man VERB`", "man-db"));
  checks.push_back(
      check_program("python3", "`make parity` compares with transformers", "python3-venv"));
  checks.push_back(check_program("cmake", "building espalier from source", "cmake"));
  checks.push_back(check_program("ninja", "building espalier from source", "ninja-build"));
  return checks;
}

std::string as_text(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    text += format("{:<9} {:<12} {}\n", finding_name(check.finding), check.name, check.detail);
    if (!check.fix.empty()) text += format("{:<9} {:<12}   {}\n", "", "", check.fix);
  }
  return text;
}

std::string as_json(const std::vector<Check>& checks, bool well) {
  Json list = Json::array();
  for (const Check& check : checks)
    list.push_back({{"name", check.name},
                    {"status", finding_name(check.finding)},
                    {"detail", check.detail},
                    {"fix", check.fix}});
  const MemoryFacts memory = memory_facts();
  return dump_json({{"schema", "espalier.doctor/1"},
                    {"ok", well},
                    {"version", build_info().version},
                    {"libtorch", build_info().libtorch_version},
                    {"libtorch_path", libtorch_path()},
                    {"cores", usable_cores()},
                    {"memory_bytes", memory.total.count},
                    {"memory_available_bytes", memory.available.count},
                    {"disk_free_bytes", free_disk(".").count},
                    {"cuda", has_cuda()},
                    {"checks", list}});
}

int run_doctor(const DoctorOptions&, Context& context) {
  const std::vector<Check> checks = run_checks(context.common);
  std::int64_t missing = 0;
  for (const Check& check : checks)
    if (check.finding == Finding::kMissing) ++missing;
  std::string text = as_text(checks);
  text += missing == 0 ? "\nEverything espalier needs is here. Next: espalier inspect MODEL\n"
                       : format("\n{} needed thing{} missing; see the lines above.\n", missing,
                                missing == 1 ? " is" : "s are");
  context.print_result(text, as_json(checks, missing == 0));
  return missing == 0 ? 0 : static_cast<int>(ErrorKind::kEnvironment);
}

}  // namespace

Command doctor_command() {
  return make_command<DoctorOptions>(
      "doctor", "Check", "say what this machine offers, what is missing and what to type about it",
      run_doctor, {"espalier doctor", "espalier doctor --device cuda --json"});
}

}  // namespace espalier::cli
