error: secret: 'NO_SUCH_TOKEN' comes from the environment, where NO_SUCH_TOKEN is not set
  --> case.lua:1:1
   |
 1 | secret("NO_SUCH_TOKEN")
   | ^^^^^^
  hint: set NO_SUCH_TOKEN, or say where it comes from: --secret NO_SUCH_TOKEN=file:PATH, or [secrets] in sandscript.toml
