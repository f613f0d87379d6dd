"""Our template interpreter against jinja2 as transformers sets it up: templates of the usual shapes, and small ones that
press on single features. Templates here are written for this test; none is copied from a model.

    tests/parity/run.sh chat_template
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import jinja2
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers.utils.chat_template_utils import _compile_jinja_template
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SOURCE = pathlib.Path(os.environ.get("ESPALIER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
PROBE = pathlib.Path(os.environ.get("ESPALIER_BUILD", SOURCE / "build")) / "tests" / "parity" / "espalier_tokenizer_probe"

CHATML = """{% for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nYou answer briefly.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] | trim ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{#- The system message comes out of the list. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if strftime_now is defined %}{% set date = "now" %}{% else %}{% set date = "1 Jan 2026" %}{% endif %}
{%- if tools is not none %}{{ "Tools: " }}{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{% endif %}
{{- system_message }}<|eot_id|>
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{ tool_call.arguments | tojson }}{{ "}" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate user and assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("only user and assistant roles, found " ~ message.role) }}
    {%- endif %}
{%- endfor %}
"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{%- for message in rest -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("bad content") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}"""

THINKING = """{%- macro show(content, label='') %}
    {%- if content is string %}{{- content.strip('\\n') }}{% else %}{{ raise_exception('x') }}{% endif %}
    {%- if label %} ({{ label|upper }}){% endif %}
{%- endmacro %}
{%- set ns = namespace(last=-1, seen=[]) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.last < 0 and message.role == "user" %}{% set ns.last = index %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set reasoning = '' %}
    {%- if '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<|' + message.role + '|>\\n<think>\\n' + reasoning.strip() + '\\n</think>\\n\\n' + show(content) }}
    {%- else %}
        {{- '<|' + message.role + '|>\\n' + show(content, message.role if loop.first) }}
    {%- endif %}
    {%- if loop.previtem is defined and loop.previtem.role == message.role %}{{ '<!same>' }}{% endif %}
    {%- if not loop.last and loop.nextitem.role == 'assistant' %}{{- '<!next>' }}{%- endif %}
    {{- '<|end|>' if not loop.last else '' }}
{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% generation %}x{% endgeneration %}{% endif %}"""

# The constructs of the families' templates, in words of our own: qwen2.5 and qwen3 (tools, tool calls, thoughts kept only after
# the last question), gemma3 (system folded into the first turn, contents that are lists), phi3, olmo2, smollm2, llama2.
QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You help.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """{%- if tools %}{{- raise_exception('tools') }}{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

PHI3 = ("{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}")

OLMO2 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
         "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
         "{% if not loop.last %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% else %}"
         "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
         "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}")

SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are small.<|im_end|>\n' }}"
           "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
          "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
          "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
          "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
          "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")

SNIPPETS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\n c\n", "  {# c #}\nx{# y #} z\n\n", "a {%+ if true %} b {%+ endif +%}\n c", "{{ 'a' -}}   \n b {{- 'c' }}", "x\n{% raw %} {{ a }} {% b %}\n{% endraw %}\ny",
    "x {%- raw -%}  {{ a }}  {%- endraw -%} y", "{{ 1 + 2 * 3 ** 2 - 7 // 2 % 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ 1.5e3 }} {{ 10 / 5 }} {{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }}",
    "{{ 'a' ~ 1 + 2 ~ 'b' }}", "{{ 1 if false }}|{{ 1 if false else 2 }}|{{ none }}|{{ true }}|{{ [1, 'a', none, 2.0, {'k': \"it's\"}] }}|{{ (1,) }}|{{ 1, 2 }}|{{ () }}",
    "{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[::-1] }}{{ 'äöü'[1:] }}{{ [1,2,3,4][1:3] }}{{ [1,2,3][-2:] }}{{ 'abc'[5:] }}{{ [1,2,3][::2] }}{{ 'abc'[:-10:-1] }}{{ 'x'[3] is defined }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' in 'abc' }}{{ 'z' not in ['a'] }}{{ not 1 == 2 }}{{ 1 == 1.0 }}{{ 'a' == 1 }}{{ true == 1 }}{{ none == undefined_thing }}{{ [1] == [1] }}{{ {'a': 1} == {'a': 1} }}",
    "{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ undefined_thing | default('d') }}|{{ '' | default('d', true) }}|{{ '' | d('x') }}|{% for a in undefined_thing %}x{% else %}none{% endfor %}",
    "{% for i in range(5) if i % 2 == 0 %}{{ i }}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }},{% endfor %}",
    "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}{{ {'a': 1} | items | list }}{{ {'b': 1, 'a': 2} | dictsort }}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y is defined }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = (1, 2) %}{{ t[0] }}{{ t }}", "{% set block %}  x {{ 1 }} {% endset %}[{{ block }}]{% set up | upper | trim %} y {% endset %}[{{ up }}]",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{{ '  a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a'.lstrip() }}|{{ 'a '.rstrip() }}|{{ 'a,b,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}|{{ 'a  b c'.split(none, 1) }}|{{ 'a-b-c'.rsplit('-', 1) }}|{{ 'a\nb\r\nc'.splitlines() }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'a b'.title() }}{{ 'ÄB'.lower() }}{{ 'äß'.upper() if false else 'ä'.upper() }}{{ 'hello world'.capitalize() }}{{ 'aXbX'.replace('X', 'y') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ 'abcabc'.find('c') }}{{ 'abcabc'.rfind('c') }}{{ 'a.b'.count('.') }}{{ ', '.join(['a', 'b']) }}{{ '12'.isdigit() }}",
    "{{ 'they\\'re \"here\"' }}{{ \"a\\tb\\x41\\u00e9\\n\" }}{{ 'a' 'b' }}{{ 'back\\\\slash' }}{{ ['it\\'s', 'a\"b', 'x\ny'] }}",
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A', 'c'] | sort }}{{ [1, 2, 3] | sum }}{{ [1, 2, 2, 1] | unique | list }}{{ [1, 5, 3] | max }}{{ [1, 5, 3] | min }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list }}{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'abc' | list }}{{ -5 | abs }}{{ (-5) | abs }}",
    "{{ messages | map(attribute='role') | join(', ') }}|{{ messages | map('length') | list }}|{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | list }}|{{ [1, 2, 3, 4] | select('even') | list }}|{{ ['', 'a'] | select | list }}|{{ ['a', 'b'] | map('upper') | join }}",
    "{{ {'a': [1, 2.5, none, true, 'é\"\n'], 'b': {}, 'c': []} | tojson }}|{{ {'a': [1, {'b': 2}], 'e': []} | tojson(indent=2) }}|{{ 'x</y>' | tojson }}|{{ [] | tojson }}",
    "{{ '42' | int + 1 }}{{ 'x' | int(7) }}{{ '1.5' | float }}{{ 3.9 | int }}{{ 3 | string ~ 'a' }}{{ 'abc' | length }}{{ 'äöü' | length }}{{ {'a': 1} | length }}{{ 'a\nb' | indent(2) }}{{ 'a\n\nb' | indent(2, true) }}{{ '  x ' | trim }}{{ 'xxaxx' | trim('x') }}{{ 'a b' | title }}",
    "{{ 1 is number }}{{ 'a' is string }}{{ [] is iterable }}{{ {} is mapping }}{{ none is none }}{{ 1 is odd }}{{ 2 is even }}{{ 6 is divisibleby 3 }}{{ 1 is not defined }}{{ true is true }}{{ 1 is true }}{{ false is false }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}{{ [1] is sequence }}{{ 3 is eq 3 }}{{ 3 is in [3] }}{{ 'a' is equalto 'a' }}{{ range is callable }}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ c is defined }}]{% endmacro %}{% set c = 1 %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=0) }}{{ m() }}{{ m(1) | upper | length }}",
    "{% if a is defined and a %}1{% elif messages and not false %}2{% else %}3{% endif %}{% if 0 or '' or none or [] %}x{% endif %}{{ 0 or 'b' }}{{ 1 and 'c' }}{{ not [] }}",
    "{{ messages[0].role }}{{ messages[0]['content'] }}{{ messages[-1].role }}{{ messages[99] is defined }}{{ messages[0].nothing is defined }}{{ messages[0].get('nothing', 'd') }}{{ messages[0].get('x') }}{{ messages[0].keys() | list }}{{ 'role' in messages[0] }}{{ messages | length }}",
    "{{ range(3) | list }}{{ range(1, 10, 3) | list }}{{ range(3, 0, -1) | list }}{{ 'ab' * 3 }}{{ [1] * 2 + [2] }}{{ dict(a=1)['a'] }}{{ 'x' if 1 > 2 else 'y' if 2 > 3 else 'z' }}{{ (1 + 2) * 3 }}{{ [1, 2,] }}{{ {'a': 1,} }}",
    "{{ messages[0].content | replace('e', 'E') | upper }}{{ 'a' | replace('a', 'b') }}{{ '%d' if false else 'p' }}{{ 5 // 2 }}{{ 5.0 // 2 }}{{ true + 1 }}{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}{{ bos_token + eos_token }}",
    "{%- for m in messages -%}\n{%- if m.role == 'user' -%}\n U: {{ m.content }}\n{%- else -%}\n A: {{ m.content }}\n{%- endif -%}\n{%- endfor %}\n\n", "\n\n{{ 1 }}\n\n", "a\r\nb\r{{ 'c' }}\n", "{{ '}}' }}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b'] }}{# {{ x }} #}",
    "{% for a in [1,2] %}{% for b in [3,4] %}{{ loop.index }}{{ a }}{{ b }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for a in [] %}x{% else %}empty{% endfor %}{% for c in 'añ' %}{{ c }},{% endfor %}", "{{ loop is defined }}{{ 'a'.join is defined }}{{ 1_000 }}",
]
FAILING = ["{{ raise_exception('no') }}", "{{ missing.attribute }}", "{{ 1 + 'a' }}", "{{ missing() }}", "{% for x in 5 %}{% endfor %}", "{{ 1 / 0 }}", "{{ 'a' < 1 }}", "{% set x.y = 1 %}", "{% if %}", "{{ 'a }}", "{% for a in b %}", "{{ a b }}", "{% endif %}", "{{ [1, 2 }}", "{% unknown %}",
           "{{ 1 | nofilter }}", "{{ 1 is notest }}"]

CONVERSATIONS = [
    [("user", "Hello, what's 1 + 1?")],
    [("system", "Be kind.\n"), ("user", "  padded  \n"), ("assistant", "<think>\nwell\n</think>\n\nTwo. "), ("user", "Thanks <|im_end|> [/INST] <s>")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    [("user", "x"), ("user", "y")], [("assistant", "first")], [("tool", "{}"), ("user", "日本語 👍\t")], [("user", "")], [("system", "only")],
]


class Probe:
    def __init__(self, path):
        self.process = subprocess.Popen([str(PROBE), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def __call__(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def reference(template, messages, prompt, strings):
    try:
        return _compile_jinja_template(template).render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **strings)
    except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError, AttributeError, ValueError):
        return None


def chat_tokenizer(folder):
    """A small byte-level tokenizer with the special tokens of all templates above."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|end|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text for chat in CONVERSATIONS for _, text in chat] * 20 + ["system user assistant model\n\n hello answer briefly"] * 20, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return special


def check_chat_ids(folder, templates, special):
    """Ids of a chat are those of the rendered text, except that words of messages are never special tokens."""
    failures = 0
    for name, template in templates.items():
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "chat_template": template}))
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        probe = Probe(folder)
        ids_of = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
        for chat in CONVERSATIONS:
            messages = [{"role": role, "content": text} for role, text in chat]
            try:
                expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            except Exception:
                continue
            got = probe(chat={"messages": messages, "add_generation_prompt": True}).get("ids")
            hostile = any(token in text for _, text in chat for token in special)
            if hostile:  # the same count of special tokens as for harmless words
                harmless = [{"role": m["role"], "content": m["content"].replace("<", "(").replace("[", "(")} for m in messages]
                count = lambda ids: sum(i in ids_of.values() for i in ids)
                wanted = count(tokenizer.apply_chat_template(harmless, add_generation_prompt=True, tokenize=True, return_dict=False))
                text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                good = count(got) == wanted and tokenizer.decode(got) == text
            else:
                good = got == expected
            if not good:
                failures += 1
                print(f"  chat ids, {name}: {chat}\n    theirs {expected}\n    ours   {got}")
    return failures


def main():
    if not PROBE.exists():
        print(f"skipped: {PROBE} is not built (ninja espalier_tokenizer_probe)")
        return 77
    failures = cases = 0
    templates = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "thinking": THINKING, "qwen2.5": QWEN25, "qwen3": QWEN3,
                 "gemma3": GEMMA3, "phi3": PHI3, "olmo2": OLMO2, "smollm2": SMOLLM2, "llama2": LLAMA2}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        special = chat_tokenizer(folder)
        probe = Probe(folder / "tokenizer.json")
        strings = {"bos_token": "<s>", "eos_token": "</s>"}
        for template in list(templates.values()) + SNIPPETS + FAILING:
            for chat in CONVERSATIONS if template in templates.values() else CONVERSATIONS[:2]:
                for prompt in (False, True):
                    messages = [{"role": role, "content": text} for role, text in chat]
                    expected = reference(template, messages, prompt, strings)
                    got = probe(template=template, messages=messages, add_generation_prompt=prompt, strings=strings)
                    cases += 1
                    if got.get("text") != expected:
                        failures += 1
                        print(f"  {template!r}\n    {chat} {prompt}\n    theirs {expected!r}\n    ours   {got.get('text', got)!r}")
        failures += check_chat_ids(folder, templates, special)
    print(f"chat templates: {failures} differences in {cases} renderings (jinja2 {jinja2.__version__}, transformers {transformers.__version__})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
