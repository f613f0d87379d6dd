// Decoders of tokenizer.json: token spellings to text. Streams by nature: each step takes one token
// at a time and says what is certain, so decoding piece by piece and decoding the whole cannot
// differ.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/json_internal.h"

namespace espalier::text {

/// Takes tokens one by one. After a step that fuses, the whole text is one token, which comes in
/// parts.
class DecoderSink {
 public:
  virtual ~DecoderSink() = default;
  virtual void put(std::string_view text) = 0;
  virtual void finish() = 0;
};

/// Makes the state of one step for one text. The state refers to the step and to the next sink.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual std::unique_ptr<DecoderSink> start(DecoderSink& next) const = 0;
};

class Decoder {
 public:
  Decoder() = default;
  /// From the "decoder" value of tokenizer.json; null joins tokens with spaces, as the `tokenizers`
  /// package does. Throws Error(kUnsupported) naming the type that we do not have.
  explicit Decoder(const Json& description);

  /// One text's worth of decoding. Keep the Decoder alive.
  class Run {
   public:
    explicit Run(const Decoder& decoder);
    ~Run();
    Run(Run&&) noexcept;
    Run& operator=(Run&&) noexcept;
    /// Text that became certain with this token.
    std::string push(std::string_view token);
    /// What was held back.
    std::string finish();

   private:
    struct Output;
    std::unique_ptr<Output> output_;
    std::vector<std::unique_ptr<DecoderSink>> stages_;  // last step first
    DecoderSink* first_ = nullptr;
  };

 private:
  void add(const Json& description, int depth);
  std::vector<std::shared_ptr<const DecoderStep>> steps_;
  bool fused_ = false;  // while building: what comes out of the last step is one token in parts
};

}  // namespace espalier::text
