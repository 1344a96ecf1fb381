"""Load a checkpoint and loop a block of it, in ten lines: next token, likelihood and continuation, plainly and looped.

loopkit convert smollm2-135m-instruct smol
python examples/loop_a_checkpoint.py smol 8:12x2
"""

import sys

import loopkit

folder, plan = sys.argv[1:]
model = loopkit.load(folder)
ids = model.prompt_ids("The capital of France is")
for order in (None, plan):
    following = model.logits([ids], plan=order)[0, -1].argmax()
    continuation = "".join(model.generate(ids, plan=order, max_tokens=20))
    print(f"plan {model.text(order)}: {len(model.resolve(order))} visits, {model.nll([ids], plan=order).mean():.3f} nats a token")
    print(f"  next token {model.tokenizer.decode([following])!r}, then{continuation!r}")
