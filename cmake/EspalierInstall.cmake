# `make install PREFIX=...`: program, static libraries, public headers, CMake package, man pages, completions.
# libtorch is not copied: the program and the package point at the one they were built with, unless told otherwise.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(modules GLOBAL PROPERTY ESPALIER_MODULES)
add_custom_target(espalier_libraries)
foreach(module IN LISTS modules)
  get_target_property(kind ${module} TYPE)
  if(NOT kind STREQUAL "INTERFACE_LIBRARY")
    add_dependencies(espalier_libraries ${module})
  endif()
endforeach()

set(ESPALIER_INSTALL_RPATH "${ESPALIER_TORCH_RPATH}" CACHE STRING
    "Where the installed program looks for libtorch (default: the libtorch it was built with)")
set_target_properties(espalier PROPERTIES INSTALL_RPATH "${ESPALIER_INSTALL_RPATH}")

set_target_properties(espalier_torch PROPERTIES EXPORT_NAME torch)
set_target_properties(espalier_fmt PROPERTIES EXPORT_NAME fmt)
install(TARGETS espalier RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(TARGETS ${modules} espalier_torch espalier_fmt espalier_arrow EXPORT espalier_targets
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/espalier/" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/espalier"
        FILES_MATCHING PATTERN "*.h" PATTERN "*_internal.h" EXCLUDE PATTERN "*_testing.h" EXCLUDE
        PATTERN "testdata" EXCLUDE)
install(EXPORT espalier_targets NAMESPACE espalier:: DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/espalier")
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/espalier-config.cmake.in"
                              "${CMAKE_BINARY_DIR}/install/espalier-config.cmake"
                              INSTALL_DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/espalier")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/install/espalier-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/install/espalier-config.cmake"
              "${CMAKE_BINARY_DIR}/install/espalier-config-version.cmake"
        DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/espalier")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/CHANGELOG.md"
        DESTINATION "${CMAKE_INSTALL_DOCDIR}")

install(CODE "set(ESPALIER_PROGRAM \"$<TARGET_FILE:espalier>\")
set(ESPALIER_MANDIR \"${CMAKE_INSTALL_MANDIR}\")
set(ESPALIER_DATADIR \"${CMAKE_INSTALL_DATADIR}\")")
install(SCRIPT "${CMAKE_CURRENT_LIST_DIR}/install_generated.cmake")
