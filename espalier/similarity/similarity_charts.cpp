// See similarity_charts.h.
#include "espalier/similarity/similarity_charts.h"

#include "espalier/base/format.h"

namespace espalier {

std::vector<std::vector<double>> matrix_rows(const at::Tensor& matrix) {
  const at::Tensor plain = matrix.to(at::kCPU, at::kDouble).contiguous();
  std::vector<std::vector<double>> rows;
  for (std::int64_t i = 0; i < plain.size(0); ++i) {
    const double* row = plain.const_data_ptr<double>() + i * plain.size(1);
    rows.emplace_back(row, row + plain.size(1));
  }
  return rows;
}

std::string matrix_csv(const at::Tensor& matrix) {
  std::string csv;
  for (const auto& row : matrix_rows(matrix)) {
    for (std::size_t i = 0; i < row.size(); ++i) csv += format("{}{}", i == 0 ? "" : ",", row[i]);
    csv += "\n";
  }
  return csv;
}

ReportHeatMap similarity_map(const at::Tensor& cka, std::string title,
                             const std::vector<std::int64_t>& starts,
                             const std::vector<std::int64_t>& removed) {
  ReportHeatMap map;
  map.title = std::move(title);
  map.x_label = map.y_label = "layer";
  map.values = matrix_rows(cka);
  for (const std::int64_t start : starts)
    if (start > 0) map.cuts.push_back(static_cast<int>(start));
  map.cuts_name = "segments";
  map.highlight.assign(removed.begin(), removed.end());
  map.highlight_name = "removed";
  return map;
}

ReportChart layer_bars(std::string title, std::string y_label, const std::vector<double>& values,
                       const std::vector<std::string>& names,
                       const std::vector<std::int64_t>& removed) {
  ReportChart chart;
  chart.kind = ReportChart::Kind::kBar;
  chart.title = std::move(title);
  chart.x_label = "layer";
  chart.y_label = std::move(y_label);
  chart.x_names = names;
  ReportSeries series{chart.title, {}, values};
  for (std::size_t i = 0; i < values.size(); ++i) series.x.push_back(static_cast<double>(i));
  chart.series.push_back(std::move(series));
  chart.highlight.assign(removed.begin(), removed.end());
  chart.highlight_name = "removed";
  return chart;
}

}  // namespace espalier
