// How much memory tensors take at most, counted at the CPU allocator: for tests that promise a
// peak.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include <c10/core/CPUAllocator.h>

namespace espalier::testing_support {

/// While it lives, every CPU tensor's memory goes through it; memory given out earlier is not
/// counted. `live` and `peak` are bytes since construction.
class CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : below_(c10::GetCPUAllocator()) {
    live = peak = 0;
    c10::SetCPUAllocator(this, 10);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(below_, 10); }

  c10::DataPtr allocate(std::size_t bytes) override {
    c10::DataPtr inner = below_->allocate(bytes);
    void* data = inner.get();
    live += static_cast<std::int64_t>(bytes);
    peak = std::max(peak, live);
    auto* block = new Block{std::move(inner), static_cast<std::int64_t>(bytes)};
    return {data, block, &release, c10::DeviceType::CPU};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  static inline std::int64_t live = 0, peak = 0;

 private:
  struct Block {
    c10::DataPtr data;
    std::int64_t bytes;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    live -= block->bytes;
    delete block;
  }
  c10::Allocator* below_;
};

}  // namespace espalier::testing_support
