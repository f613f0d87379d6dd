// Training rows as JSON, for sft_parity.py: one object per row, then one with the counts.
//
//   espalier_sft_probe MODEL DATA [format=..] [cutoff=..] [dolly_mask=compat] [train_on=all]
//                      [special_in_text=off]
#include <iostream>
#include <map>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/data/sft_rows.h"

namespace espalier {
namespace {

int run(int argc, char** argv) {
  if (argc < 3) throw Error(ErrorKind::kUsage, "sft_probe", "expected a model and a data file");
  std::map<std::string, std::string> given;
  for (int i = 3; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::size_t equals = argument.find('=');
    given[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  SftOptions options;
  if (given.contains("format")) options.format = parse_sft_format(given["format"]);
  if (given.contains("cutoff")) options.cutoff = std::stoll(given["cutoff"]);
  if (given["dolly_mask"] == "compat") options.dolly_mask = DollyMask::kCompat;
  if (given["train_on"] == "all") options.train_on = TrainOn::kAll;
  options.special_in_text = given["special_in_text"] != "off";
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  const SftData data = load_sft_data(argv[2], tokenizer, options, silent_reporter());
  for (std::int64_t i = 0; i < data.rows.size(); ++i) {
    const TrainingRow& row = data.rows.row(i);
    std::cout << Json{{"ids", row.ids}, {"labels", row.labels}}.dump() << "\n";
  }
  const RowCounts& counts = data.rows.counts;
  std::cout << Json{{"format", sft_format_name(data.format)},
                    {"read", counts.read},
                    {"without_answer", counts.without_answer},
                    {"answer_cut", counts.answer_cut},
                    {"too_long", counts.too_long},
                    {"truncated", counts.truncated}}
                   .dump()
            << "\n";
  return 0;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  try {
    return espalier::run(argc, argv);
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  }
}
