"""Conditional fine-tuning is judged on what it was taught to do."""

from smpo.app.evaluate.prompt_prefix import good_prefix, prompted
from smpo.components.objectives import ConditionalFineTuning, SmPO


class Recorder:
    def sample(self, prompts, seeds, *, guidance, steps, reference=False, size=None):
        return [(prompt, reference) for prompt in prompts]


def test_the_policy_is_asked_with_the_good_prefix_and_the_base_plainly():
    inner = Recorder()
    asked = prompted(inner, ConditionalFineTuning(good="fine ").sampling())
    how = {"guidance": 1.0, "steps": 2}
    assert asked.sample(["a"], [1], **how) == [("fine a", False)]
    assert asked.sample(["a"], [1], reference=True, **how) == [("a", True)]
    assert prompted(inner, SmPO().sampling()) is inner
    assert good_prefix(ConditionalFineTuning(good="fine ").sampling()) == "fine "
    assert good_prefix(SmPO().sampling()) == ""
