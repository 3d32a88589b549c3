"""What a compiled model writes, as it writes it.

    PYTHONPATH=austen/python python write.py [PROMPT]

See README.md for how the folder comes to be.
"""

import sys

import austen

prompt = sys.argv[1] if len(sys.argv) > 1 else "My dear Mr. Bennet,"
with austen.Model(context=256) as model:
    print(prompt, end="")
    for text in model.generate(prompt, max_tokens=40, temperature=0):
        print(text, end="", flush=True)
    print()
