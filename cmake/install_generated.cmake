# Runs at install time: asks the program for its man pages and shell completions, so that they cannot differ from its flags.
# ESPALIER_PROGRAM, ESPALIER_MANDIR and ESPALIER_DATADIR are set by EspalierInstall.cmake.
set(_root "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")

function(_write_output_of file)
  execute_process(COMMAND "${ESPALIER_PROGRAM}" ${ARGN} OUTPUT_VARIABLE text ERROR_VARIABLE message RESULT_VARIABLE status)
  if(NOT status EQUAL 0 OR text STREQUAL "")
    message(FATAL_ERROR "${ESPALIER_PROGRAM} ${ARGN} failed (${status}): ${message}")
  endif()
  file(WRITE "${_root}/${file}" "${text}")
  message(STATUS "Installing: ${_root}/${file}")
endfunction()

_write_output_of("${ESPALIER_MANDIR}/man1/espalier.1" man)
# The program's own page lists the verbs as .BR espalier-VERB (1); dashes are escaped in roff.
file(STRINGS "${_root}/${ESPALIER_MANDIR}/man1/espalier.1" _lines REGEX "^\\.BR espalier.*\\(1\\)")
foreach(_line IN LISTS _lines)
  string(REPLACE "\\" "" _line "${_line}")
  string(REGEX REPLACE "^\\.BR espalier-([a-z-]+) .*" "\\1" _verb "${_line}")
  _write_output_of("${ESPALIER_MANDIR}/man1/espalier-${_verb}.1" man "${_verb}")
endforeach()
_write_output_of("${ESPALIER_DATADIR}/bash-completion/completions/espalier" completion bash)
_write_output_of("${ESPALIER_DATADIR}/zsh/site-functions/_espalier" completion zsh)
_write_output_of("${ESPALIER_DATADIR}/fish/vendor_completions.d/espalier.fish" completion fish)
