// Translation of exceptions; see failure.h.
#include "apps/cli/failure.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <system_error>
#include <typeinfo>

#include <cxxabi.h>

#include <c10/util/Exception.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/reporter.h"

namespace espalier::cli {

namespace {

constexpr const char* kReport =
    "this is a bug in espalier; please report it with the command and, if there is one, "
    "run/manifest.json";
constexpr const char* kLessMemory =
    "use smaller batches (--batch-tokens, --batch-size), --dtype bfloat16, or a machine with more "
    "memory; --dry-run predicts the need";

std::string type_name(const std::exception& error) {
  const char* mangled = typeid(error).name();
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return status == 0 ? name.get() : mangled;
}

Failure from_error(const Error& error, bool debug) {
  std::string text = error.to_string();
  if (debug) text += "\n  thrown at: " + error.where();
  return {error.exit_code(), text + "\n"};
}

bool is_about_memory(const std::string& text) {
  for (const char* words : {"out of memory", "not enough memory", "can't allocate memory",
                            "Cannot allocate memory", "bad_alloc"})
    if (text.find(words) != std::string::npos) return true;
  return false;
}

// libtorch's message is its first line; the stack below it is for --debug.
Failure from_torch(const c10::Error& error, bool memory, bool debug) {
  const std::string full = error.what_without_backtrace();
  const std::string first = full.substr(0, full.find('\n'));
  Error ours(memory ? ErrorKind::kResource : ErrorKind::kInternal, "libtorch",
             first.empty() ? "failed without a message" : first);
  ours.hint(memory ? kLessMemory : kReport);
  std::string text = ours.to_string();
  if (debug) text += format("\n  thrown as: {}\n{}", type_name(error), error.what());
  return {ours.exit_code(), text + "\n"};
}

Failure from_file_system(const std::filesystem::filesystem_error& error, bool debug) {
  const std::error_code code = error.code();
  const bool resource =
      code == std::errc::no_space_on_device || code == std::errc::read_only_file_system ||
      code == std::errc::permission_denied || code == std::errc::operation_not_permitted ||
      code == std::errc::too_many_files_open || code == std::errc::file_too_large;
  Error ours(resource ? ErrorKind::kResource : ErrorKind::kInternal, error.path1().string(),
             code.message());
  ours.hint(resource ? "free some space, or choose a place that can be written" : kReport);
  std::string text = ours.to_string();
  if (debug) text += format("\n  thrown as: {}: {}", type_name(error), error.what());
  return {ours.exit_code(), text + "\n"};
}

Failure from_unknown(const std::string& what, const std::string& type, bool debug) {
  Error ours(ErrorKind::kInternal, "unexpected failure", what);
  ours.hint(kReport);
  std::string text = ours.to_string();
  if (debug) text += "\n  thrown as: " + type;
  return {ours.exit_code(), text + "\n"};
}

}  // namespace

std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F)
      out += format("\\x{:02x}", static_cast<unsigned>(byte));
    else
      out += c;
  }
  return out;
}

Failure describe_failure(std::exception_ptr error, bool debug) {
  Failure failure;
  try {
    std::rethrow_exception(std::move(error));
  } catch (const Error& e) {
    failure = from_error(e, debug);
  } catch (const Interrupted& e) {
    failure = {130, e.saved.empty() ? "interrupted: nothing was kept\n"
                                    : "interrupted: " + e.saved + "\n"};
  } catch (const c10::OutOfMemoryError& e) {
    failure = from_torch(e, true, debug);
  } catch (const c10::Error& e) {
    failure = from_torch(e, is_about_memory(e.what_without_backtrace()), debug);
  } catch (const std::bad_alloc&) {
    Error ours(ErrorKind::kResource, "memory", "the system refused to give more");
    ours.hint(kLessMemory);
    failure = {ours.exit_code(), ours.to_string() + "\n"};
  } catch (const std::filesystem::filesystem_error& e) {
    failure = from_file_system(e, debug);
  } catch (const std::exception& e) {
    failure = from_unknown(e.what(), type_name(e), debug);
  } catch (...) {
    failure = from_unknown("something that is no exception was thrown", "unknown", debug);
  }
  failure.text = printable(failure.text);
  return failure;
}

}  // namespace espalier::cli
