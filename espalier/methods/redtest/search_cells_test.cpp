// The choice among measured cells, with hand-made numbers, and the file of a cell.
#include "espalier/methods/redtest/search_cells.h"

#include <cmath>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/methods/redtest/cell_space.h"

#include "tests/support/thrown_by.h"

namespace espalier::redtest {
namespace {

using testing_support::thrown_by;

NatsCell cell_of(const std::string& id) { return tss_cell(std::stoll(id, nullptr, 5)); }

CellResult result_of(double accuracy, double msrs_normalised, std::int64_t parameters) {
  CellResult result;
  result.accuracy = accuracy;
  result.msrs_normalised = msrs_normalised;
  result.msrs = 153 * msrs_normalised;
  result.parameters = parameters;
  return result;
}

TEST(Choice, SmallestRedundancyAmongThoseNearTheBest) {
  std::vector<SearchedCell> cells{{tss_cell(15'000), result_of(0.90, 0.60, 900)},
                                  {tss_cell(15'001), result_of(0.89, 0.30, 800)},   // just within
                                  {tss_cell(15'002), result_of(0.889, 0.10, 100)},  // just outside
                                  {tss_cell(15'003), result_of(0.895, 0.30, 700)},
                                  {tss_cell(15'004), result_of(0.895, 0.40, 50)}};
  SearchChoice choice = choose_cells(cells, 1.0);
  EXPECT_EQ(choice.best, 0);
  EXPECT_EQ(choice.survivors, (std::vector<std::int64_t>{0, 1, 3, 4}));
  EXPECT_EQ(choice.chosen, 3) << "the tie of 0.30 goes to fewer parameters";
  EXPECT_EQ(choose_cells(cells, 0).chosen, 0);
  EXPECT_EQ(choose_cells(cells, 2).chosen, 2);
  cells[2].result.failed = "NaN";
  cells[0].result.failed = "NaN";
  choice = choose_cells(cells, 1.0);
  EXPECT_EQ(choice.best, 3) << "the tie of 0.895 goes to the less redundant";
  EXPECT_EQ(choice.chosen, 3);
  for (SearchedCell& cell : cells) cell.result.failed = "NaN";
  EXPECT_EQ(choose_cells(cells, 1.0).chosen, -1);
  EXPECT_TRUE(choose_cells({}, 1.0).pareto.empty());
}

TEST(Choice, ParetoFrontOfThreeNumbers) {
  const std::vector<SearchedCell> cells{{tss_cell(1), result_of(0.80, 0.2, 100)},
                                        {tss_cell(2), result_of(0.90, 0.5, 300)},
                                        {tss_cell(3), result_of(0.85, 0.5, 300)},   // worse than 1
                                        {tss_cell(4), result_of(0.85, 0.6, 90)},    // smallest
                                        {tss_cell(5), result_of(0.80, 0.2, 100)},   // equal to 0
                                        {tss_cell(6), result_of(0.79, 0.2, 100)}};  // worse than 0
  EXPECT_EQ(choose_cells(cells, 1.0).pareto, (std::vector<std::int64_t>{1, 3, 0, 4}));
}

TEST(Choice, Fitness) {
  EXPECT_DOUBLE_EQ(cell_fitness(result_of(0.9, 0.5, 1), 0.1), 0.85);
  EXPECT_DOUBLE_EQ(cell_fitness(result_of(0.9, 0.5, 1), 0), 0.9);
  CellResult failed = result_of(0.9, 0.5, 1);
  failed.failed = "NaN";
  EXPECT_TRUE(std::isinf(cell_fitness(failed, 0)));
}

TEST(CellFile, RoundTripsBitByBitAndOthersAreNotTaken) {
  TempFolder dir;
  const NatsCell cell = cell_of("310342");
  CellResult result = result_of(1.0 / 3, 0.1 + 0.2, 1'073'466);
  result.accuracy_stderr = std::sqrt(2) / 100;
  result.images = 5000;
  result.degenerate = 2;
  result.seconds = 12.5;
  write_file_atomically(dir / "c.json", cell_to_json(cell, result, "settings"));
  auto back = cell_from_json(dir / "c.json", cell, "settings");
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->accuracy, 1.0 / 3);
  EXPECT_EQ(back->accuracy_stderr, result.accuracy_stderr);
  EXPECT_EQ(back->msrs_normalised, 0.1 + 0.2);
  EXPECT_EQ(back->msrs, result.msrs);
  EXPECT_EQ(back->parameters, 1'073'466);
  EXPECT_EQ(back->images, 5000);
  EXPECT_EQ(back->degenerate, 2);
  EXPECT_EQ(back->seconds, 12.5);
  EXPECT_FALSE(back->test_accuracy);
  EXPECT_EQ(back->failed, "");
  EXPECT_FALSE(cell_from_json(dir / "c.json", cell, "other settings"));
  EXPECT_FALSE(cell_from_json(dir / "c.json", cell_of("310341"), "settings"));
  EXPECT_FALSE(cell_from_json(dir / "none.json", cell, "settings"));
  result.test_accuracy = 0.0;
  result.failed = "loss is nan";
  write_file_atomically(dir / "c.json", cell_to_json(cell, result, "settings"));
  back = cell_from_json(dir / "c.json", cell, "settings");
  EXPECT_EQ(back->failed, "loss is nan");
  EXPECT_EQ(back->test_accuracy, 0.0);
  write_file_atomically(dir / "c.json", "{");
  EXPECT_EQ(thrown_by([&] { cell_from_json(dir / "c.json", cell, "s"); }).kind(),
            ErrorKind::kInput);
}

}  // namespace
}  // namespace espalier::redtest
