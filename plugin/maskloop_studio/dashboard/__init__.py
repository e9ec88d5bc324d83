"""The pages a person looks at: projects, versions, trainings, jobs and pictures."""
