// The error that a call throws, for tests of its kind, message and hint.
#pragma once

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier::testing_support {

/// What `fn` throws; an internal error and a failed test when it throws nothing.
template <class Fn>
Error thrown_by(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

}  // namespace espalier::testing_support
