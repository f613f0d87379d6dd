# Arrow and Parquet, optional: one interface target espalier_arrow for the pyarrow wheel that `tools/setup.sh arrow`
# unpacks under .deps/arrow. Only the three libraries that Parquet needs are linked, by their versioned names.
set(ESPALIER_ARROW_DIR "${CMAKE_CURRENT_SOURCE_DIR}/.deps/arrow/pyarrow" CACHE PATH
    "The pyarrow folder of an unpacked pyarrow wheel (the one that holds include/ and libarrow.so.*)")
add_library(espalier_arrow INTERFACE)
add_library(espalier::arrow ALIAS espalier_arrow)
set_target_properties(espalier_arrow PROPERTIES EXPORT_NAME arrow)
if(ESPALIER_ARROW)
  file(GLOB _arrow_library "${ESPALIER_ARROW_DIR}/libarrow.so.*")
  file(GLOB _parquet_library "${ESPALIER_ARROW_DIR}/libparquet.so.*")
  if(NOT _arrow_library OR NOT _parquet_library OR NOT EXISTS "${ESPALIER_ARROW_DIR}/include/parquet/arrow/reader.h")
    message(FATAL_ERROR "Arrow not found in ${ESPALIER_ARROW_DIR}.\n"
                        "Run `tools/setup.sh arrow` first, or pass -DESPALIER_ARROW_DIR=<site-packages>/pyarrow")
  endif()
  # Headers and the definition are given to espalier/io/parquet.cpp alone (its CMakeLists.txt): Arrow stops there.
  # libtorch and the two libraries have nine exported symbols in common, all of them std:: (nm -D; torch 2.11.0, pyarrow
  # 26.0.1), so their order does not matter.
  target_link_libraries(espalier_arrow INTERFACE "$<BUILD_INTERFACE:${_parquet_library};${_arrow_library}>")
  list(APPEND ESPALIER_TORCH_RPATH "${ESPALIER_ARROW_DIR}")
  set(CMAKE_BUILD_RPATH ${ESPALIER_TORCH_RPATH})
endif()
