// SHA-256 through OpenSSL's libcrypto (SHA-NI where present), XXH3 through libxxhash.
#include "espalier/base/hash.h"

#include <array>
#include <fstream>
#include <vector>

#include <openssl/evp.h>
#include <xxhash.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

std::string to_hex(const unsigned char* bytes, std::size_t count) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * count);
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ESPALIER_ASSERT(context_ != nullptr &&
                    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(const void* data, std::size_t size) {
    ESPALIER_ASSERT(EVP_DigestUpdate(context_.get(), data, size) == 1);
  }
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    ESPALIER_ASSERT(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1);
    return to_hex(digest.data(), size);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  Sha256 sha;
  sha.add(bytes.data(), bytes.size());
  return sha.finish();
}

std::string sha256_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorKind::kInput, path.string(), "cannot be opened for reading");
  Sha256 sha;
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) ||
         file.gcount() > 0) {
    sha.add(buffer.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw Error(ErrorKind::kInput, path.string(), "read error");
  return sha.finish();
}

struct FastHash::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() { XXH3_128bits_reset(xxh); }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

FastHash::FastHash() : state_(std::make_unique<State>()) {}
FastHash::~FastHash() = default;
FastHash::FastHash(FastHash&&) noexcept = default;
FastHash& FastHash::operator=(FastHash&&) noexcept = default;

void FastHash::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}
void FastHash::add(std::string_view text) {
  XXH3_128bits_update(state_->xxh, text.data(), text.size());
}

std::string FastHash::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace espalier
