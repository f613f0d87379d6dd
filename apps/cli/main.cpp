// Entry point of the program; everything else is in program.cpp.
#include "apps/cli/program.h"

int main(int argc, char** argv) {
  return espalier::cli::run_program({argv + (argc > 0 ? 1 : 0), argv + argc});
}
