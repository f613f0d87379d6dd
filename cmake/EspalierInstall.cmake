# `make install PREFIX=...`: program, static libraries, public headers, CMake package, man pages, completions.
