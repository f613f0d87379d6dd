// How much memory tensors take at most, counted at the CPU allocator: for tests that promise a
// peak.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <unordered_map>
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
    if (data == nullptr) return inner;
    const std::scoped_lock lock(mutex);
    live += static_cast<std::int64_t>(bytes);
    peak = std::max(peak, live);
    // A block that is listed still was freed as a plain pointer by another allocator meanwhile.
    if (const auto stale = blocks.find(data); stale != blocks.end()) {
      stale->second.data.release_context();
      blocks.erase(stale);
    }
    blocks.emplace(data, Block{std::move(inner), static_cast<std::int64_t>(bytes)});
    return {data, data, &release, c10::DeviceType::CPU};
  }
  /// oneDNN takes scratch memory as plain pointers.
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  static inline std::int64_t live = 0, peak = 0;

 private:
  struct Block {
    c10::DataPtr data;
    std::int64_t bytes;
  };
  static void release(void* data) {
    const std::scoped_lock lock(mutex);
    const auto block = blocks.find(data);
    if (block == blocks.end()) return c10::GetDefaultCPUAllocator()->raw_deallocate(data);
    live -= block->second.bytes;
    blocks.erase(block);
  }
  static inline std::mutex mutex;
  static inline std::unordered_map<void*, Block> blocks;
  c10::Allocator* below_;
};

}  // namespace espalier::testing_support
