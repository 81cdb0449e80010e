/* Two minima: SAM and gradient descent from a point that is dragged, one step at a time. */
"use strict";

(function () {
  const { maths, shown } = Moving, ETA = 0.05, START = [-1.5, 0.6], WIDE = [-2, 2], HIGH = [-1, 1];
  const LEVELS = [0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4], COLUMNS = 161, ROWS = 81;

  /* The contour lines as one path, once for all sizes: in cells of a grid, which `draw` scales. */
  const lines = (() => {
    const values = [];
    for (let j = 0; j < ROWS; j++) {
      for (let i = 0; i < COLUMNS; i++) {
        values.push(maths.valley([WIDE[0] + (4 * i) / (COLUMNS - 1), HIGH[0] + (2 * j) / (ROWS - 1)]));
      }
    }
    return d3.contours().size([COLUMNS, ROWS]).thresholds(LEVELS)(values).flatMap((level) => level.coordinates.flat());
  })();

  const near = (w) => (Math.hypot(w[0] + 1, w[1]) < 0.5 ? "near the sharp minimum" : Math.hypot(w[0] - 1, w[1]) < 0.5 ? "near the wide minimum" : "near neither minimum");

  Moving.thing("two-minima", "Two minima, with SAM and gradient descent to step", (stage) => {
    const rho = Moving.slider(stage, { name: "rho", label: "radius <i>ρ</i>", range: [0, 2], step: 0.05, value: 0.3, show: (v) => shown(v, 2) });
    const map = Moving.chart(stage, {
      label: "Contour lines of a valley with a sharp minimum on the left and a wide one on the right", x: WIDE, y: HIGH, square: true, grouped: true,
      xLabel: "w₁", yLabel: "w₂", ticks: [5, 5],
      legend: [{ name: "moving-ce", text: "SAM" }, { name: "moving-climb", text: "its climb" }, { name: "moving-sgd", text: "gradient descent" }],
    });
    const contours = map.plot.append("path").attr("class", "moving-contour");
    const minima = map.plot.append("path").attr("class", "moving-cross");
    const words = ["sharp", "wide"].map((text) => map.plot.append("text").attr("class", "moving-note").attr("text-anchor", "middle").text(text));
    const paths = { sgd: map.line("moving-sgd"), sam: map.line("moving-ce moving-thin") };
    const climb = map.line("moving-climb"), ends = { sgd: map.plot.append("circle"), sam: map.plot.append("rect") };
    const top = map.plot.append("circle").attr("r", 4).attr("class", "moving-dot");

    let start = START, sam, sgd, running = 0;
    const restart = () => {
      cancelAnimationFrame(running);
      [sam, sgd] = [[start], [start]];
    };
    const step = () => {
      sam.push(maths.samStep(sam.at(-1), rho.value, ETA).next);
      sgd.push(maths.samStep(sgd.at(-1), 0, ETA).next);
    };
    const knob = Moving.handle(map, {
      label: "Starting point", at: () => start, step: 0.05, range: WIDE, text: () => `${shown(start[0], 2)}, ${shown(start[1], 2)}`,
      moved: ([a, b]) => {
        start = [Moving.clamp(a, WIDE), Moving.clamp(b, HIGH)];
        restart();
        stage.draw();
      },
    });
    Moving.button(stage, "One step", () => {
      cancelAnimationFrame(running);
      step();
      stage.draw();
    });
    Moving.button(stage, "100 steps", () => {
      cancelAnimationFrame(running);
      let left = 100;
      const on = () => {
        for (let k = 0; left && k < (Moving.calm() ? 100 : 1); k++, left--) step();
        stage.draw();
        if (left) running = requestAnimationFrame(on);
      };
      on();
    });
    Moving.button(stage, "Back to the start", () => {
      restart();
      stage.draw();
    });
    const numbers = Moving.table(stage, ["", "<i>w</i>", "loss", "where"], [
      ["SAM", "sam-w", "sam-loss", "sam-near"], ["gradient descent", "sgd-w", "sgd-loss", "sgd-near"],
    ]);
    restart();

    return () => {
      map.fit();
      const ring = (points) => map.path(points.map(([i, j]) => [WIDE[0] + (4 * (i - 0.5)) / (COLUMNS - 1), HIGH[0] + (2 * (j - 0.5)) / (ROWS - 1)]));
      contours.attr("d", lines.map(ring).join(""));
      minima.attr("d", [-1, 1].map((u) => `M${map.x(u) - 5},${map.y(0) - 5}l10,10m0,-10l-10,10`).join(""));
      words.forEach((text, k) => text.attr("x", map.x(2 * k - 1)).attr("y", map.y(-0.88)));
      const here = sam.at(-1), there = sgd.at(-1), next = maths.samStep(here, rho.value, ETA);
      paths.sam.attr("d", map.path(sam));
      paths.sgd.attr("d", map.path(sgd));
      const up = [here[0] + next.climb[0], here[1] + next.climb[1]];
      climb.attr("d", map.path([here, up]));
      top.attr("cx", map.x(up[0])).attr("cy", map.y(up[1]));
      ends.sgd.attr("class", "moving-sgd-fill").attr("r", 5).attr("cx", map.x(there[0])).attr("cy", map.y(there[1]));
      ends.sam.attr("class", "moving-ce-fill").attr("x", map.x(here[0]) - 5).attr("y", map.y(here[1]) - 5).attr("width", 10).attr("height", 10);
      knob.place(start);
      const at = (w) => `(${shown(w[0], 2)}, ${shown(w[1], 2)})`;
      numbers.fill({
        "sam-w": at(here), "sam-loss": shown(maths.valley(here), 4), "sam-near": near(here),
        "sgd-w": at(there), "sgd-loss": shown(maths.valley(there), 4), "sgd-near": near(there),
      });
      const count = sam.length - 1;
      stage.say(`${count === 0 ? "At the start" : `After ${count} ${count === 1 ? "step" : "steps"}`}: SAM is at ${at(here)}, ${near(here)}; `
        + `gradient descent is at ${at(there)}, ${near(there)}.`);
    };
  });
})();
