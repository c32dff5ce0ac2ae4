"""The chat format as a Jinja template, for runtimes that render conversations themselves.

in:  messages and tools as in OpenAI's API: content as text, as a list of text parts or null
out: the text whose ids `chat.render` gives, with `{% generation %}` around the tokens of the loss mask

The training data contains no tool calls: tools, calls and results are written as plain text of the existing roles.
"""

CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{ content }}
{%- elif content -%}
{%- for part in content -%}
{%- if part is string -%}
{{ part }}
{%- elif part['type'] == 'text' -%}
{{ part['text'] }}
{%- else -%}
{{ raise_exception('content part of type ' ~ part['type'] ~ ': only text is supported') }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro calls(tool_calls) -%}
{%- for call in tool_calls -%}
{%- set function = call['function'] if call['function'] else call -%}
{%- set arguments = function['arguments'] -%}
{{ '{"name": ' ~ (function['name'] | tojson) ~ ', "arguments": ' }}
{{- (arguments if arguments is string else (arguments | tojson)) ~ '}' }}
{{- '' if loop.last else '\\n' }}
{%- endfor -%}
{%- endmacro -%}
{{ bos_token }}
{%- if tools %}
{{- '<|system|>' }}
{%- if messages and messages[0]['role'] in ['system', 'developer'] %}
{{- text(messages[0]['content']) ~ '\\n\\n' }}
{%- endif %}
{{- 'You can call these functions, given as JSON schemas:' }}
{%- for tool in tools %}
{{- '\\n' ~ (tool | tojson) }}
{%- endfor %}
{{- '\\nTo call one, answer only with {"name": its name, "arguments": an object}.<|end_of_turn|>' }}
{%- endif %}
{%- for message in messages %}
{%- set role = 'system' if message['role'] == 'developer' else message['role'] %}
{%- if role == 'assistant' %}
{{- '<|assistant|>' }}
{%- generation %}
{{- text(message['content']) }}
{%- if message['tool_calls'] %}
{{- ('\\n' if message['content'] else '') ~ calls(message['tool_calls']) }}
{%- endif %}
{{- '<|end_of_turn|>' }}
{%- endgeneration %}
{%- elif role == 'tool' %}
{{- '<|user|>Result' ~ (' of ' ~ message['name'] if message['name'] else '') ~ ':\\n' }}
{{- text(message['content']) ~ '<|end_of_turn|>' }}
{%- elif role == 'user' or role == 'system' %}
{%- if not (tools and loop.first and role == 'system') %}
{{- '<|' ~ role ~ '|>' ~ text(message['content']) ~ '<|end_of_turn|>' }}
{%- endif %}
{%- else %}
{{- raise_exception('unknown role ' ~ message['role'] ~ ': use system, user, assistant or tool') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""
