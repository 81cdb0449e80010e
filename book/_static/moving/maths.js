/* The formulas of the things to move. Tests compare each of them with the code of the book. */
"use strict";
window.Moving = window.Moving || {};

Moving.maths = (function () {
  const GAMMA = Math.log(Math.E - 1); // the smallest shift that keeps -log below the step

  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

  /* A lower bound of the step: its value and its slope. */
  const negLog = (gamma = GAMMA) => ({
    value: (x) => 1 - softplus(gamma - x),
    slope: (x) => sigmoid(gamma - x),
  });
  const tanh = (alpha = 0.1) => ({
    value: (x) => Math.tanh(alpha * x),
    slope: (x) => 4 * alpha * sigmoid(2 * alpha * x) * sigmoid(-2 * alpha * x),
  });

  /* Classes are given in groups: {margin, count}. Classes of one group have the same margin; the true class is the group with margin 0. */
  function logSumExp(groups, exponent) {
    const present = groups.filter((group) => group.count > 0);
    const top = Math.max(...present.map(exponent));
    const sum = present.reduce((total, group) => total + group.count * Math.exp(exponent(group) - top), 0);
    return top + Math.log(sum);
  }

  /* q of one sample, and how hard a class of each group pulls at it. */
  function surrogate(bound, mu, groups) {
    const exponent = (group) => mu * bound.value(group.margin);
    const all = groups.reduce((total, group) => total + group.count, 0);
    const sum = logSumExp(groups, exponent);
    return {
      value: (sum - Math.log(all)) / mu,
      pulls: groups.map((group) => Math.exp(exponent(group) - sum) * bound.slope(group.margin)),
    };
  }

  function crossEntropy(groups) {
    const sum = logSumExp(groups, (group) => group.margin);
    return { value: sum, pulls: groups.map((group) => Math.exp(group.margin - sum)) };
  }

  /* The classes of the two samples of the page "wrong maximiser", with leads of their own. */
  const FAR = -40;
  const spread = (classes, lead) => [{ margin: 0, count: 1 }, { margin: -lead, count: classes - 1 }];
  const torn = (classes, lead) => [{ margin: 0, count: 1 }, { margin: lead, count: 1 }, { margin: FAR, count: classes - 2 }];

  /* The valley of the page "two minima": loss, gradient, and one step of SAM; with radius 0 it is gradient descent. */
  const across = (u) => 1 + 19 * sigmoid(-u / 0.3);

  const valley = ([u, v]) => (u * u - 1) ** 2 / (5 * (1 + u * u)) + (across(u) * v * v) / 2;

  function valleyGradient([u, v]) {
    const s = u * u, share = sigmoid(-u / 0.3);
    const along = (2 * u * (s - 1) * (s + 3)) / (5 * (1 + s) ** 2);
    const turning = (-19 / 0.3) * share * (1 - share);
    return [along + (turning * v * v) / 2, across(u) * v];
  }

  function samStep(w, rho, eta) {
    const g = valleyGradient(w), length = Math.max(Math.hypot(...g), 1e-12);
    const climb = g.map((each) => (rho * each) / length);
    const there = valleyGradient([w[0] + climb[0], w[1] + climb[1]]);
    const move = there.map((each) => -eta * each);
    return { climb, move, next: [w[0] + move[0], w[1] + move[1]] };
  }

  /* The toy with a ball on the page "wrong maximiser": the samples, the weights, and what a perturbation does. */
  const SAMPLES = [
    { z: [0.14, 1], count: 1, kind: "close" }, { z: [0.16, 1], count: 1, kind: "close" },
    { z: [0.18, 1], count: 1, kind: "close" }, { z: [0.2, 1], count: 1, kind: "close" },
    { z: [5, -1], count: 8, kind: "safe" }, { z: [-4, 0], count: 1, kind: "hopeless" },
  ];
  const START = [1, 0], RADIUS = 0.3;

  const rival = (z, [a, b]) => -((START[0] + a) * z[0] + (START[1] + b) * z[1]);

  function ball(perturbation) {
    const bound = negLog(), sums = { mistakes: 0, crossEntropy: 0, q: 0 };
    let samples = 0;
    for (const { z, count } of SAMPLES) {
      const margin = rival(z, perturbation), groups = [{ margin: 0, count: 1 }, { margin, count: 1 }];
      samples += count;
      sums.mistakes += count * (margin > 0);
      sums.crossEntropy += count * crossEntropy(groups).value;
      sums.q += count * surrogate(bound, 1.5, groups).value;
    }
    return { mistakes: sums.mistakes, crossEntropy: sums.crossEntropy / samples, q: sums.q / samples };
  }

  /* The highest values in the ball, on the grid of the page: 61 lengths in 721 directions. */
  function ballMaxima() {
    const best = { crossEntropy: { value: -Infinity }, q: { value: -Infinity } };
    for (let i = 0; i <= 60; i++) {
      for (let j = 0; j <= 720; j++) {
        const length = (RADIUS * i) / 60, angle = (2 * Math.PI * j) / 720;
        const at = [length * Math.cos(angle), length * Math.sin(angle)], found = ball(at);
        for (const name of ["crossEntropy", "q"]) {
          if (found[name] > best[name].value) best[name] = { value: found[name], at, mistakes: found.mistakes };
        }
      }
    }
    return best;
  }

  return {
    GAMMA, RADIUS, SAMPLES, START, ball, ballMaxima, crossEntropy, negLog, rival, samStep, sigmoid, softplus, spread, surrogate,
    tanh, torn, valley, valleyGradient,
  };
})();
