// Lines of JSON {"template","place","variables","partials"} in; for each a line with what Handlebars makes of it, or null.
const handlebars = require("handlebars");
const compare = (test) => (a, b) => test(a, b);
handlebars.registerHelper({
  eq: compare((a, b) => a === b), ne: compare((a, b) => a !== b), lt: compare((a, b) => a < b),
  lte: compare((a, b) => a <= b), gt: compare((a, b) => a > b), gte: compare((a, b) => a >= b),
  and: (a, b) => !handlebars.Utils.isEmpty(a) && a !== 0 && !handlebars.Utils.isEmpty(b) && b !== 0,
  or: (a, b) => (!handlebars.Utils.isEmpty(a) && a !== 0) || (!handlebars.Utils.isEmpty(b) && b !== 0),
  len: (a) => a.length,
  not: (a) => handlebars.Utils.isEmpty(a) || a === 0,
});
for (const line of require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const { template, place, variables, partials } = JSON.parse(line);
  let out = null;
  try {
    const options = { noEscape: place !== "html" };
    const compiled = Object.fromEntries(Object.entries(partials || {}).map(
      ([name, text]) => [name, handlebars.compile(text, options)]));
    out = handlebars.compile(template, options)(variables, { partials: compiled });
  } catch (error) { /* it is refused */ }
  console.log(JSON.stringify(out));
}
