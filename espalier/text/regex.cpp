// Regex: compilation with JIT and bounded matching on per-thread scratch memory.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <cctype>

#include <pcre2.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/regex_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kMaxPattern = 64 * 1024;
constexpr std::size_t kJitStackStart = 32 * 1024;
constexpr std::size_t kJitStackLimit = 1024 * 1024;
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;
// A well-behaved tokenizer pattern backtracks over each byte a few times at most.
constexpr std::uint64_t kBaseSteps = 1'000'000;
constexpr std::uint64_t kStepsPerByte = 16;

/// Match data, JIT stack and limits of one thread.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr);

  Scratch() {
    if (data == nullptr || context == nullptr || stack == nullptr) {
      throw Error(ErrorKind::kResource, "regular expression", "no memory for the matcher");
    }
    pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_heap_limit(context, kHeapLimitKib);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160];
  const int length = pcre2_get_error_message(code, buffer, sizeof(buffer));
  return length > 0
             ? std::string(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(length))
             : format("code {}", code);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern) : pattern_(pattern) { compile(to_pcre2_dialect(pattern)); }

Regex Regex::literal(std::string_view text) {
  Regex regex;
  regex.pattern_ = text;
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && !std::isalnum(byte) && byte != 0) {
      escaped += '\\';
      escaped += c;
    } else if (byte == 0) {
      escaped += "\\x{0}";
    } else {
      escaped += c;
    }
  }
  regex.compile(escaped);
  return regex;
}

void Regex::compile(const std::string& pcre_pattern) {
  if (pcre_pattern.size() > kMaxPattern) {
    throw Error(
        ErrorKind::kUnsupported, "regular expression",
        format("a pattern of {} bytes is longer than {}", pcre_pattern.size(), kMaxPattern));
  }
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pcre_pattern.data()), pcre_pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, context.get());
  if (code->code == nullptr) {
    throw Error(ErrorKind::kInput, "regular expression",
                format("\"{}\" does not compile at byte {}: {}", to_valid_utf8(pattern_), offset,
                       error_text(error)));
  }
  code->jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  code_ = std::move(code);
}

bool Regex::next(std::string_view subject, Scan& scan) const {
  Scratch& own = scratch();
  const std::uint64_t limit = kBaseSteps + kStepsPerByte * subject.size();
  pcre2_set_match_limit(own.context,
                        static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, 0xFFFFFFFFu)));
  const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  while (scan.resume <= subject.size()) {
    int status = pcre2_match(code_->code, text, subject.size(), scan.resume, PCRE2_NO_UTF_CHECK,
                             own.data, own.context);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) {
      status = pcre2_match(code_->code, text, subject.size(), scan.resume,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, own.data, own.context);
    }
    if (status == PCRE2_ERROR_NOMATCH) return false;
    if (status < 0) {
      throw Error(ErrorKind::kUnsupported, "regular expression",
                  format("\"{}\" gave up on a text of {} bytes: {}", to_valid_utf8(pattern_),
                         subject.size(), error_text(status)))
          .hint("split the text into lines, or use a tokenizer with a simpler pre-tokenizer");
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(own.data);
    scan.begin = ends[0];
    scan.end = ends[1];
    if (scan.end < scan.begin || scan.end < scan.resume) return false;  // \K inside a look-around
    if (scan.begin == scan.end && scan.end == scan.last_end) {
      if (scan.resume == subject.size()) return false;
      scan.resume += utf8_length(static_cast<unsigned char>(subject[scan.resume]));
      continue;
    }
    scan.resume = scan.end;
    scan.last_end = scan.end;
    return true;
  }
  return false;
}

}  // namespace espalier::text
