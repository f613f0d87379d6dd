// Pre-tokenizers of tokenizer.json: text is cut into words that the model never merges across.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/json_internal.h"

namespace espalier::text {

/// A part of the text on its way through the pre-tokenizers.
struct Piece {
  std::string_view text;  // valid UTF-8, never empty; only alive during the call it is handed to
  bool at_start = false;  // begins where the whole input begins
};

using PieceSink = std::function<void(const Piece&)>;

class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  virtual void split(const Piece& piece, const PieceSink& sink) const = 0;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// From the "pre_tokenizer" value of tokenizer.json (null gives one piece). Throws
  /// Error(kUnsupported) naming the type that we do not have.
  explicit PreTokenizer(const Json& description);

  /// Pushes the words of `piece` to `sink`, in order.
  void split(const Piece& piece, const PieceSink& sink) const { run(0, piece, sink); }

  /// True when the last step spells words in byte letters. The words given to the sink are then raw
  /// bytes (still valid UTF-8 or a cut of it): spelling is left to the caller, who caches by word.
  bool spells_bytes() const { return spells_bytes_; }

 private:
  void add(const Json& description, int depth);
  void run(std::size_t index, const Piece& piece, const PieceSink& sink) const;

  std::vector<std::shared_ptr<const PreTokenizerStep>> steps_;
  bool spells_bytes_ = false;
};

}  // namespace espalier::text
