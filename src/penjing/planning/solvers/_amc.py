"""Lets an agent walk from place to place and choose how much goes there, rewarded by what the network loses in the end."""

from typing import Any

import numpy as np

from penjing.planning.assignment import Taking
from penjing.planning.exploration import Evaluations, Exploration, finite, with_all
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._exploring import explored
from penjing.planning.solvers._registry import solvers
from penjing.planning.trials import check_installed

NOISE = 0.5  # standard deviation of an action's noise at first, as in the paper
EXPLORING = 0.25  # share of the episodes with that noise, as 100 of the paper's 400
LEAST_NOISE = 0.02  # standard deviation at the end; between, it falls from episode to episode by one factor
HIDDEN = [300, 300]  # units of the layers of actor and critic, as in the paper
EPISODES = 3  # times the evaluations that the agent walks; of a small problem all choices were seen long before
WORST = -3.0  # the least reward: choices that lose very much are alike, and their losses would drown all others


class Walk:
    """One walk after another over all places; what is taken so far, and what the agent sees of it."""

    def __init__(self, asked: Exploration, found: Evaluations) -> None:
        """Begins in front of the first place."""
        self.asked, self.found = asked, found
        self.places = [place for place, some in asked.open.items() if len(some) > 1]
        whole = dict.fromkeys(asked.problem.options, 0)
        self._whole = asked.used(whole) or 1.0  # where no limit is above 0, nothing is a share of one
        self.cheapest: dict[str, int] = {}
        self._saves: dict[str, float] = {}
        for place in self.places:
            used = {option: asked.used({**whole, place: option}) for option in asked.open[place]}
            self.cheapest[place] = min(used, key=lambda option: used[option])
            self._saves[place] = 1 - min(used.values()) / self._whole
        self._unit = abs(finite(found.of(whole))) or 1.0
        self.begin()

    def begin(self) -> None:
        """Goes back to the first place of the unchanged network."""
        self.taken: Taking = dict.fromkeys(self.asked.problem.options, 0)
        self.at, self._last = 0, 0.0

    def seen(self) -> np.ndarray:
        """Returns the agent's state: where it is, what this place and all later ones can save, and what was saved."""
        place = self.places[min(self.at, len(self.places) - 1)]
        rest = sum(self._saves[one] for one in self.places[self.at :])
        now = self.asked.used(self.taken) / self._whole
        options = len(self.asked.open[place]) / 10
        return np.array(
            [self.at / len(self.places), options, self._saves[place], rest, 1 - now, self._last], dtype=np.float32
        )

    def go(self, action: float) -> float | None:
        """Takes an option, from the mildest at 0 to the strongest at 1; returns the reward behind the last place, else None.

        As the paper clips actions, a stronger option is taken where the strongest ones at all later places wouldn't suffice.
        """
        place = self.places[self.at]
        some = self.asked.open[place]
        number = round(float(np.clip(action, 0, 1)) * (len(some) - 1))
        self.at += 1
        later = self.places[self.at :]
        while number < len(some) - 1 and self._too_much(place, some[number], later):
            number += 1
        self.taken = with_all(self.asked.problem, self.taken, place, some[number])
        self._last = number / (len(some) - 1)
        if later:
            return None
        return max(WORST, -finite(self.found.of(self.taken)) / self._unit)

    def _too_much(self, place: str, option: int, later: list[str]) -> bool:
        taken = with_all(self.asked.problem, self.taken, place, option)
        return self.asked.repair.excess({**taken, **{one: self.cheapest[one] for one in later}}) > 0


def walked(asked: Exploration) -> Evaluations:
    """Trains the agent, Stable-Baselines3's DDPG, on walks whose ends are evaluated."""
    import torch

    found = Evaluations(asked)
    walk = Walk(asked, found)
    for one in asked.starts:
        if found.ended:
            break
        found.of(one)
    if walk.places and not found.ended:
        with torch.random.fork_rng(devices=[]):  # the library seeds PyTorch's generator
            _trained(asked, walk)
    return found


def _trained(asked: Exploration, walk: Walk) -> None:
    import gymnasium
    from stable_baselines3 import DDPG
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import ActionNoise

    episodes = EPISODES * asked.evaluations
    generator = np.random.default_rng(asked.seed)

    class Noise(ActionNoise):  # type: ignore[misc]
        def __call__(self) -> np.ndarray:
            done = len(walk.found.all) / asked.evaluations
            share = max(0.0, (done - EXPLORING) / (1 - EXPLORING))
            return np.array([generator.normal(0.0, NOISE * (LEAST_NOISE / NOISE) ** share)], dtype=np.float32)

    class Places(gymnasium.Env):  # type: ignore[misc]
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)
        action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

        def reset(self, **given: Any) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(**given)
            walk.begin()
            return walk.seen(), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            reward = walk.go(float(action[0]))
            return walk.seen(), reward or 0.0, reward is not None, False, {}

    class Until(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            return not walk.found.ended

    agent = DDPG(
        "MlpPolicy", Places(), gamma=1.0, batch_size=64, buffer_size=100 * len(walk.places), action_noise=Noise(),
        learning_starts=10 * len(walk.places), policy_kwargs={"net_arch": HIDDEN}, seed=asked.seed, device="cpu",
    )  # fmt: skip
    agent.learn(episodes * len(walk.places), callback=Until())


@solvers.register(
    source="He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, 2018; repair: Chu & Beasley, A "
    "Genetic Algorithm for the Multidimensional Knapsack Problem, 1998",
    explore=walked,
    package="stable_baselines3",
)
def amc(problem: Problem) -> Solution:
    """Trains an actor and a critic (DDPG) that walk from place to place and choose how much goes, by the measured damage.

    Hidden layers, noise and clipping of actions are the paper's; DDPG is Stable-Baselines3's. Beyond the paper, or unlike it: an
    action chooses among the options of any technique; the state tells what places can save, not the shapes of layers; the reward
    is the damage over that of the repaired original, given at the end of a walk, without discount; the end of each walk is moved
    onto the limits by what options cost and do alone, and the repaired original is evaluated first.

    If no plan keeps the budget, the nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: Stable-Baselines3 isn't installed, or a technique proposes options at values.
    """
    check_installed("stable_baselines3", "amc")
    return explored(problem, "amc", walked)
