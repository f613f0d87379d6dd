// Preloaded into the program by cases/failures.txt: its first write to stdout throws what $THROW
// names, so that the way from an unexpected exception to exit code and message is tested in the
// real process.
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string_view>

#include <sys/syscall.h>
#include <unistd.h>

extern "C" __attribute__((visibility("default"))) ssize_t write(int descriptor, const void* data,
                                                                std::size_t size) {
  const char* kind = std::getenv("THROW");
  if (descriptor == STDOUT_FILENO && kind != nullptr) {
    if (std::string_view(kind) == "memory") throw std::bad_alloc();
    if (std::string_view(kind) == "number") throw 7;
    throw std::runtime_error("a surprise");
  }
  return syscall(SYS_write, descriptor, data, size);
}
