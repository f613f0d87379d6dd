// Finds stop strings in text that arrives in pieces, and holds back what could still become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace espalier {

class StopFilter {
 public:
  /// Empty strings are ignored.
  explicit StopFilter(std::vector<std::string> stops);

  /// Adds text; returns what can be shown now. After a stop string was found nothing more is shown.
  std::string push(std::string_view piece);
  /// The end of the text: what was held back and is not a stop string after all.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace espalier
