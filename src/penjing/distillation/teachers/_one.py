"""The teacher "one": a single network."""

from typing import Any

from penjing.distillation.teachers._registry import Lesson, Teacher, teachers


@teachers.register(source="Hinton, Vinyals and Dean 2015, arXiv:1503.02531", name="one")
class One(Teacher):
    """Answers as one network does, often the original or a larger one."""

    constant = True

    def answers(self, lesson: Lesson) -> Any:
        """Returns the network's outputs."""
        return lesson.run(self.networks[0], lesson.inputs)
