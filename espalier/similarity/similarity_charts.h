// Pictures of similarities for reports: the matrix as a heat map with its segments framed, and one
// bar per layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/report/html_report.h"

namespace espalier {

/// Rows of a matrix as plain numbers.
std::vector<std::vector<double>> matrix_rows(const at::Tensor& matrix);

/// "0.93,0.12\n...": one line per row.
std::string matrix_csv(const at::Tensor& matrix);

/// `starts`: where segments begin (0 among them or not). `removed` layers are marked on the axes.
ReportHeatMap similarity_map(const at::Tensor& cka, std::string title,
                             const std::vector<std::int64_t>& starts = {},
                             const std::vector<std::int64_t>& removed = {});

/// One bar per layer; `removed` in the accent colour.
ReportChart layer_bars(std::string title, std::string y_label, const std::vector<double>& values,
                       const std::vector<std::string>& names,
                       const std::vector<std::int64_t>& removed = {});

}  // namespace espalier
