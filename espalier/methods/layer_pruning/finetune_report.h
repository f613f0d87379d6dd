// What people read after a finetuning run: the model card and the HTML report.
#pragma once

#include <filesystem>

#include "espalier/methods/layer_pruning/finetune_job.h"

namespace espalier::layer_pruning {

/// README.md with the front matter that model hubs read (base_model, licence of the source's card
/// when it names one), the table before/after with its protocol, settings and the command.
void write_finetune_card(const FinetuneJob& job, const FinetuneData& data,
                         const FinetuneOutcome& outcome, const std::filesystem::path& path);

/// Loss and learning-rate curves, the table before/after, settings, provenance; one self-contained
/// file.
void write_finetune_report(const FinetuneJob& job, const FinetuneData& data,
                           const FinetuneOutcome& outcome, const std::filesystem::path& path);

}  // namespace espalier::layer_pruning
