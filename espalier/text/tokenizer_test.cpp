#include <gtest/gtest.h>
#include "espalier/text/tokenizer.h"
